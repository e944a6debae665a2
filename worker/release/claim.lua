-- Claims a release for one warm run, or gives the claim back.
--
-- KEYS  1 release
-- ARGV  1 run   2 'claim' or 'end'
--
-- Returns {'ok'}, {'absent'} or {'run', the run that holds it}.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {'absent'}
end
local run = redis.call('HGET', KEYS[1], 'run') or ''
if ARGV[2] == 'claim' then
  if run ~= '' and run ~= ARGV[1] then
    return {'run', run}
  end
  redis.call('HSET', KEYS[1], 'run', ARGV[1])
elseif run == ARGV[1] then
  redis.call('HDEL', KEYS[1], 'run')
end
return {'ok'}
