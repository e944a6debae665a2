-- Opens a mark: takes it and registers whoever works under it, in one step.
--
-- KEYS  1 log:meta   2 pending   3 where the mark is kept (a namespace's marks, or readers)
--       4 live   5 the marks of the namespace that is read from (unused without one)
-- ARGV  1 who   2 an epoch, taken when the log has none yet   3 µs to go back
--       4 the release that must be live, or ''   5 the mark to open at, or '' for a new one
--       6 1 when KEYS 5 counts, else 0
--       7 the release that is read from and must be live, or ''; a mark that is open already was
--         taken while it was, and the replay from there makes up for what has come since
--
-- Returns {mark, epoch}, both strings: a new mark, or the one that `who` opened before and has
-- not closed. Returns {'dead', release} when a release that must be live is not.
if ARGV[4] ~= '' and redis.call('SISMEMBER', KEYS[4], ARGV[4]) == 0 then
  return {'dead', ARGV[4]}
end
local now = redis.call('TIME')
local clock = tonumber(now[1]) * 1000000 + tonumber(now[2])
local state = redis.call('HMGET', KEYS[1], 'epoch', 'last', 'floor')
local epoch, last, floor = state[1], tonumber(state[2] or '0'), tonumber(state[3] or '0')
if not epoch then
  epoch, floor = ARGV[2], clock - 1
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'floor', string.format('%.0f', floor))
end
local kept = redis.call('ZSCORE', KEYS[3], ARGV[1])
if kept then
  return {string.format('%.0f', tonumber(kept)), epoch}
end
if ARGV[7] ~= '' and redis.call('SISMEMBER', KEYS[4], ARGV[7]) == 0 then
  return {'dead', ARGV[7]}
end
local mark
if ARGV[5] ~= '' then
  mark = tonumber(ARGV[5])
else
  mark = math.max(last + 1, clock) - 1
  local lowest = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
  if lowest[2] then
    mark = tonumber(lowest[2]) - 1
  end
  if ARGV[6] == '1' then
    local writer = redis.call('ZRANGE', KEYS[5], 0, 0, 'WITHSCORES')
    if writer[2] then
      mark = math.min(mark, tonumber(writer[2]))
    end
  end
  -- Nothing is known below the floor, and in a young log nothing happened there.
  mark = math.max(mark - tonumber(ARGV[3]), floor)
end
redis.call('ZADD', KEYS[3], string.format('%.0f', mark), ARGV[1])
return {string.format('%.0f', mark), epoch}
