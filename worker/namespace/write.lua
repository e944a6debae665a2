-- Replaces one key by a collection, in one step.
-- KEYS: 1 the key
-- ARGV: 1 the command that adds items (RPUSH, HSET, SADD, ZADD), 2 expiry in Unix ms, 0 for
--       never, 3… the command's arguments after the key
-- Returns 1
redis.call('UNLINK', KEYS[1]) -- DEL frees a large value while everybody waits
redis.call(ARGV[1], KEYS[1], unpack(ARGV, 3))
if ARGV[2] ~= '0' then
  redis.call('PEXPIREAT', KEYS[1], ARGV[2])
end
return 1
