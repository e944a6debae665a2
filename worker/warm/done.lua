-- Records a finished batch. A second call for the same batch counts nothing.
--
-- KEYS  1 the run's record   2 its open batches
-- ARGV  1 batch   2 its figures (JSON)   3 source   4 planned   5 stored   6 invalidated   7 failed
--       8… of each kind of failure three: its name, how many there were, an example
--
-- Returns how many batches are still open.
if redis.call('HSETNX', KEYS[1], 'batch:' .. ARGV[1], ARGV[2]) == 1 then
  local sum = 'sum:' .. ARGV[3] .. ':'
  redis.call('HINCRBY', KEYS[1], sum .. 'planned', ARGV[4])
  redis.call('HINCRBY', KEYS[1], sum .. 'stored', ARGV[5])
  redis.call('HINCRBY', KEYS[1], sum .. 'invalidated', ARGV[6])
  redis.call('HINCRBY', KEYS[1], sum .. 'failed', ARGV[7])
  for i = 8, #ARGV, 3 do
    redis.call('HINCRBY', KEYS[1], sum .. 'failed:' .. ARGV[i], ARGV[i + 1])
    redis.call('HSETNX', KEYS[1], sum .. 'example:' .. ARGV[i], ARGV[i + 2])
  end
end
redis.call('HDEL', KEYS[1], 'part:' .. ARGV[3])
redis.call('SREM', KEYS[2], ARGV[1])
return redis.call('SCARD', KEYS[2])
