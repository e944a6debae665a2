-- Gives a lease back, if it is still held.
--
-- KEYS  1 the lease
-- ARGV  1 the loader's token
--
-- Returns 1 when it was held, 0 when it was not.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
