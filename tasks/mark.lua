-- Takes a mark: every invalidation that is not yet applied everywhere lies above it.
--
-- KEYS  1 log:meta   2 pending
-- ARGV  1 an epoch, taken when the log has none yet   2 µs to go back
--
-- Returns {mark, epoch}, both strings: the lowest pending number less one, or, when nothing is
-- pending, the next number less one; further back as asked, but not below the log's floor.
local now = redis.call('TIME')
local clock = tonumber(now[1]) * 1000000 + tonumber(now[2])
local state = redis.call('HMGET', KEYS[1], 'epoch', 'last', 'floor')
local epoch, last, floor = state[1], tonumber(state[2] or '0'), tonumber(state[3] or '0')
if not epoch then
  epoch, floor = ARGV[1], clock - 1
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'floor', string.format('%.0f', floor))
end
local lowest = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local mark = math.max(last + 1, clock) - 1
if lowest[2] then
  mark = tonumber(lowest[2]) - 1
end
return {string.format('%.0f', math.max(mark - tonumber(ARGV[2]), floor)), epoch}
