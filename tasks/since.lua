-- Tells what was invalidated after a mark, where that is little.
--
-- KEYS  1 log:meta   2 log   3 log:prefixes   4 live
-- ARGV  1 mark   2 the mark's epoch   3 the release written to, or '' to leave the live set out
--       4 how many targets are little
--
-- Returns {'these', log members…}, {'many'} when there are more of them than that, or {'all'} when
-- everything counts as invalidated: the log cannot vouch for the mark, or the release is not live (see
-- check.lua). {'newer', version} is a log of another version than this script knows.
local state = redis.call('HMGET', KEYS[1], 'epoch', 'floor', 'version')
if (state[3] or '1') ~= '1' then
  return {'newer', state[3]}
end
if state[1] ~= ARGV[2] or tonumber(ARGV[1]) < tonumber(state[2] or '0')
  or (ARGV[3] ~= '' and redis.call('SISMEMBER', KEYS[4], ARGV[3]) == 0) then
  return {'all'}
end
local few = tonumber(ARGV[4])
local reply = {'these'}
for _, key in ipairs({KEYS[2], KEYS[3]}) do
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. ARGV[1], '+inf', 'LIMIT', 0, few + 1)) do
    reply[#reply + 1] = member
  end
end
if #reply > few + 1 then
  return {'many'}
end
return reply
