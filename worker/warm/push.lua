-- Appends addresses to the list of one crawl, while nobody has finished cutting the run.
--
-- KEYS  1 the run's record   2 the list
-- ARGV  1 how long the list must be; 0 starts it anew   2… addresses
--
-- Returns 1, 0 when the run has been cut, or -1 when the list has another length: two tries of
-- the run are cutting it at once.
if redis.call('HEXISTS', KEYS[1], 'cut') == 1 then
  return 0
end
if ARGV[1] == '0' then
  redis.call('DEL', KEYS[2])
elseif redis.call('LLEN', KEYS[2]) ~= tonumber(ARGV[1]) then
  return -1
end
for i = 2, #ARGV do
  redis.call('RPUSH', KEYS[2], ARGV[i])
end
return 1
