-- Ends the cutting of a run: keeps how it was cut and opens its batches, once.
--
-- KEYS  1 the run's record   2 its open batches
-- ARGV  1 how it was cut (JSON)   2… the batches' IDs
--
-- Returns 1, or 0 when it had been cut before, and nothing was changed.
if redis.call('HSETNX', KEYS[1], 'cut', ARGV[1]) == 0 then
  return 0
end
for i = 2, #ARGV do
  redis.call('SADD', KEYS[2], ARGV[i])
end
return 1
