-- Advances an entry's last tick; it never goes back.
--
-- KEYS  1 ticks
-- ARGV  1 the entry   2 the tick, in Unix seconds
--
-- Returns 1 when the tick is the entry's last now, 0 when a later one was.
local last = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
if last > tonumber(ARGV[2]) then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
