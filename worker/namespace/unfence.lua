-- Removes one slot's fence, if it still holds the token.
-- KEYS: 1 the fence
-- ARGV: 1 the token
-- Returns 1 when it held the token, 0 when it did not
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])
