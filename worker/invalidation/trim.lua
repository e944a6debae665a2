-- Forgets the oldest part of the log, as far as nobody needs it, and raises the floor.
--
-- KEYS  1 log:meta   2 log   3 log:prefixes   4 pending   5… ZSETs of open marks
-- ARGV  1 the highest number that may be forgotten
--
-- Returns {targets forgotten, floor as a string}.
local bound = tonumber(ARGV[1])
local lowest = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
if lowest[2] then
  bound = math.min(bound, tonumber(lowest[2]) - 1)
end
for i = 5, #KEYS do
  local open = redis.call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')
  if open[2] then
    bound = math.min(bound, tonumber(open[2]))
  end
end
local floor = tonumber(redis.call('HGET', KEYS[1], 'floor') or '0')
if bound <= floor then
  return {0, string.format('%.0f', floor)}
end
local text = string.format('%.0f', bound)
-- First the floor: a full server refuses it, and then nothing may be forgotten.
redis.call('HSET', KEYS[1], 'floor', text)
local gone = redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', text) + redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', text)
return {gone, text}
