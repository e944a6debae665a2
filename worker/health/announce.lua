-- Says that a process runs, and forgets those that have long been silent.
-- KEYS[1] processes, a ZSET: process as JSON -> Unix seconds
-- ARGV[1] the process, ARGV[2] seconds after which a silent one is forgotten
-- Returns nothing.
local now = tonumber(redis.call("TIME")[1])
redis.call("ZREMRANGEBYSCORE", KEYS[1], "-inf", now - ARGV[2])
redis.call("ZADD", KEYS[1], now, ARGV[1])
redis.call("EXPIRE", KEYS[1], ARGV[2])
