-- Makes a release the active one and the active one standby, in one step.
--
-- KEYS  1 active   2 live   3 the release   4 its history   5 its open marks
--       6 the previous release   7 its history (both unused when there is none)
-- ARGV  1 id   2 from   3 the previous release's id, '' for none   4 the channel of changes
--       5 history line of the release, 6 of the previous one, without their opening braces
--       7 the newest version of a record that the caller reads
--
-- Returns {'ok'}, {'absent'}, {'newer', a record's version}, {'state', the state it is in}, {'marks', how many
-- are open} or {'active', the release that is active instead of the expected one}.
local active = redis.call('GET', KEYS[1]) or ''
if active ~= ARGV[3] then
  return {'active', active}
end
local state = redis.call('HGET', KEYS[3], 'state')
if not state then
  return {'absent'}
end
for _, record in ipairs({KEYS[3], KEYS[6]}) do
  local version = redis.call('HGET', record, 'version') or '1'
  if tonumber(version) > tonumber(ARGV[7]) then
    return {'newer', version}
  end
end
if state ~= ARGV[2] then
  return {'state', state}
end
local open = redis.call('ZCARD', KEYS[5])
if open > 0 then
  return {'marks', tostring(open)}
end
local now = redis.call('TIME')
local us = string.format('%.0f', tonumber(now[1]) * 1000000 + tonumber(now[2]))
redis.call('SET', KEYS[1], ARGV[1])
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[3], 'state', 'active', 'changed_at', us, 'activated_at', us)
redis.call('RPUSH', KEYS[4], '{"at":' .. us .. ',' .. ARGV[5])
if active ~= '' then
  redis.call('HSET', KEYS[6], 'state', 'standby', 'changed_at', us)
  redis.call('RPUSH', KEYS[7], '{"at":' .. us .. ',' .. ARGV[6])
end
redis.call('PUBLISH', ARGV[4], ARGV[1])
return {'ok'}
