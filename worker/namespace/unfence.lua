-- Takes a fence down, unless another has put up its own.
-- KEYS: 1 the fence
-- ARGV: 1 the token that it must hold
-- Returns how many were taken down, 0 or 1
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
