-- Reads up to where the log is applied everywhere, for each of some live releases.
--
-- KEYS  1 log:meta   2 pending   3 what is known of the cache Redis   4… the open marks of each release
-- ARGV  1 µs to go back
--
-- Returns {epoch, floor, servers, number…}, all strings: the log's epoch ('' while it has none), its
-- floor, the servers of the cache Redis that are known to lack nothing ('' before the first look), and
-- for each release a number. What was invalidated up to there has left the release, and no writer
-- who is not finished has read or put anything before.
local now = redis.call('TIME')
local clock = tonumber(now[1]) * 1000000 + tonumber(now[2])
local state = redis.call('HMGET', KEYS[1], 'epoch', 'last', 'floor')
local last, floor = tonumber(state[2] or '0'), tonumber(state[3] or '0')
local mark = math.max(last + 1, clock) - 1
local lowest = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if lowest[2] then
  mark = tonumber(lowest[2]) - 1
end
local reply = {state[1] or '', state[3] or '0', redis.call('HGET', KEYS[3], 'servers') or ''}
for i = 4, #KEYS do
  local number = mark
  local writer = redis.call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')
  if writer[2] then
    number = math.min(number, tonumber(writer[2]))
  end
  -- Nothing is known below the floor, and in a young log nothing happened there.
  reply[#reply + 1] = string.format('%.0f', math.max(number - tonumber(ARGV[1]), floor))
end
return reply
