-- Lets one loader at a time work on a missing entry (a lease, after "Scaling Memcache at
-- Facebook", NSDI '13).
--
-- KEYS  1 the lease
-- ARGV  1 the loader's token   2 how long the lease lasts, in milliseconds
--
-- Returns {1 when leased to this loader or 0, the server's time in Unix milliseconds}.
local now = redis.call('TIME')
local clock = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local won = redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
return {won and 1 or 0, clock}
