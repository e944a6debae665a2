-- Takes an applied record off pending and keeps what it removed.
--
-- KEYS  1 pending   2 applied
-- ARGV  1 the record's number   2 the outcome (JSON)   3 how many outcomes are kept
--
-- Returns 1, or 0 when another worker was first: its outcome stands.
if redis.call('ZREMRANGEBYSCORE', KEYS[1], ARGV[1], ARGV[1]) == 0 then
  return 0
end
redis.call('ZADD', KEYS[2], ARGV[1], ARGV[2])
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -tonumber(ARGV[3]) - 1)
return 1
