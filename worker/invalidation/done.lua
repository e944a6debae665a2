-- Takes applied records off pending and keeps what they removed.
--
-- KEYS  1 pending   2 applied   3 claims   4 the numbers left to the bulk lane   5 log:meta
-- ARGV  1 how many calls' outcomes are kept, about
--       2… for each record: its number, how many calls it has, its outcome (JSON, which begins
--       with {"count":<calls>)
--
-- Returns how many were taken off. One that another worker has applied already is not: the first
-- outcome stands.
local total = tonumber(redis.call('HGET', KEYS[5], 'outcomes') or '0')
local taken = 0
for i = 2, #ARGV, 3 do
  if redis.call('ZCOUNT', KEYS[1], ARGV[i], ARGV[i]) > 0 then
    -- First the outcome: a full server refuses it, and then the record stays pending.
    redis.call('ZADD', KEYS[2], ARGV[i], ARGV[i + 2])
    redis.call('ZREMRANGEBYSCORE', KEYS[1], ARGV[i], ARGV[i])
    total = total + tonumber(ARGV[i + 1])
    taken = taken + 1
  end
  redis.call('ZREM', KEYS[3], ARGV[i])
  redis.call('SREM', KEYS[4], ARGV[i])
end
while total > tonumber(ARGV[1]) and redis.call('ZCARD', KEYS[2]) > 1 do
  local oldest = redis.call('ZPOPMIN', KEYS[2])
  total = total - tonumber(string.match(oldest[1], '^{"count":(%d+)') or '1')
end
redis.call('HSET', KEYS[5], 'outcomes', string.format('%.0f', total))
return taken
