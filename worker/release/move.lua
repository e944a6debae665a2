-- Moves a release from one state to another, if it is in the one and has no open mark where
-- none may be.
--
-- KEYS  1 release   2 history   3 live   4 its open marks
-- ARGV  1 id   2 from   3 to   4 1 when live afterwards, else 0
--       5 1 when an open mark forbids the move, else 0   6 the history line without its opening brace
--       7 the newest version of a record that the caller reads
--
-- Returns {'ok'}, {'absent'}, {'newer', the record's version}, {'state', the state it is in} or
-- {'marks', how many are open}.
local state = redis.call('HGET', KEYS[1], 'state')
if not state then
  return {'absent'}
end
if tonumber(redis.call('HGET', KEYS[1], 'version') or '1') > tonumber(ARGV[7]) then
  return {'newer', redis.call('HGET', KEYS[1], 'version')}
end
if state ~= ARGV[2] then
  return {'state', state}
end
local open = redis.call('ZCARD', KEYS[4])
if ARGV[5] == '1' and open > 0 then
  return {'marks', tostring(open)}
end
local now = redis.call('TIME')
local us = string.format('%.0f', tonumber(now[1]) * 1000000 + tonumber(now[2]))
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'changed_at', us)
redis.call('RPUSH', KEYS[2], '{"at":' .. us .. ',' .. ARGV[6])
if ARGV[4] == '1' then
  redis.call('SADD', KEYS[3], ARGV[1])
else
  redis.call('SREM', KEYS[3], ARGV[1])
end
return {'ok'}
