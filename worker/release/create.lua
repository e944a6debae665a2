-- Registers a release in state new. It is live from here on, before anything is written to it.
--
-- KEYS  1 release   2 releases   3 history   4 live
-- ARGV  1 id   2 template   3 notes (JSON)   4 the history line without its opening brace
--       5 the record's version
--
-- Returns 1, or 0 when the release exists already.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
local now = redis.call('TIME')
local us = string.format('%.0f', tonumber(now[1]) * 1000000 + tonumber(now[2]))
redis.call('HSET', KEYS[1], 'state', 'new', 'created_at', us, 'changed_at', us, 'template', ARGV[2], 'notes', ARGV[3],
  'version', ARGV[5])
redis.call('ZADD', KEYS[2], us, ARGV[1])
redis.call('RPUSH', KEYS[3], '{"at":' .. us .. ',' .. ARGV[4])
redis.call('SADD', KEYS[4], ARGV[1])
return 1
