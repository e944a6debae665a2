-- Ends the work on keys that were taken. A key is clean only if no later invalidation has made it
-- dirty again.
--
-- KEYS  1 the dirty keys' numbers   2 the resting keys
-- ARGV  for each key: the key, the number it was taken with,
--       milliseconds after which it is to be tried again, or '0' when it is done
--
-- Returns how many keys are clean now.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local clean = 0
for i = 1, #ARGV, 3 do
  if ARGV[i + 2] ~= '0' then
    redis.call('ZADD', KEYS[2], 'XX', now + tonumber(ARGV[i + 2]), ARGV[i])
  elseif redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    clean = clean + redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return clean
