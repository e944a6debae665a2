-- Shows that a run lives, by the server's clock.
--
-- KEYS  1 the run's record
-- ARGV  1… fields and values to write besides
--
-- Returns 1.
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'touched_at', string.format('%.0f', tonumber(now[1]) * 1000000 + tonumber(now[2])), unpack(ARGV))
return 1
