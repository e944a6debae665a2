-- Ends the probation of a value, if it is still the very one that was put: its probation
-- expiry, unique to the put, is how a value is known.
--
-- KEYS  1 the entry   2 its companion; left out when it gets none
-- ARGV  1 the probation expiry   2 the real one: Unix milliseconds, 0 for none, -1 to drop the value
--       3 what the companion holds (with KEYS 2, and an expiry)
--
-- Returns 1 when the value was there and was settled, 0 when it was not.
if redis.call('PEXPIRETIME', KEYS[1]) ~= tonumber(ARGV[1]) then
  return 0
end
if ARGV[2] == '-1' then
  redis.call('DEL', KEYS[1])
elseif ARGV[2] == '0' then
  redis.call('PERSIST', KEYS[1])
else
  redis.call('PEXPIREAT', KEYS[1], ARGV[2])
  if KEYS[2] then
    redis.call('SET', KEYS[2], ARGV[3], 'PXAT', ARGV[2])
  end
end
return 1
