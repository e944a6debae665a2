-- Takes, renews or gives back the lease of a release's drain.
--
-- KEYS  1 the lease
-- ARGV  1 the drain's token   2 how long the lease lasts, in milliseconds; '0' gives it back
--
-- Returns 1 when the drain has, or had, the lease, 0 when another has it.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
