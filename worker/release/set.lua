-- Sets one field of a release that exists.
--
-- KEYS  1 release
-- ARGV  1 field   2 value   3 the newest version of a record that the caller reads
--
-- Returns {'ok'}, {'absent'} or {'newer', the record's version}.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {'absent'}
end
if tonumber(redis.call('HGET', KEYS[1], 'version') or '1') > tonumber(ARGV[3]) then
  return {'newer', redis.call('HGET', KEYS[1], 'version')}
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return {'ok'}
