-- Makes a claim hold on, as long as its record is pending.
--
-- KEYS  1 claims
-- ARGV  1 the record's number   2 how long the claim holds from now, in µs
--
-- Returns 1, or 0 when the claim is gone with its record.
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
local now = redis.call('TIME')
redis.call('ZADD', KEYS[1], string.format('%.0f', tonumber(now[1]) * 1000000 + tonumber(now[2]) + tonumber(ARGV[2])), ARGV[1])
return 1
