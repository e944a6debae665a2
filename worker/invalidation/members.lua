-- Reads one slice of a tag's index on a Cluster. A cursor means something to the process only that gave
-- it: any other, such as that of a server which the index was moved to, begins anew.
--
-- KEYS  1 the tag's index
-- ARGV  1 run ID of the process that gave the cursor   2 ZSCAN cursor   3 COUNT
--
-- Returns {run ID, next ZSCAN cursor, the score of what is gone by now, member, its score, …}.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
local step = redis.call('ZSCAN', KEYS[1], run == ARGV[1] and ARGV[2] or '0', 'COUNT', ARGV[3])
local now = redis.call('TIME')
local out = { run, step[1], '-' .. now[1] .. string.format('%03d', math.floor(tonumber(now[2]) / 1000)) }
for _, item in ipairs(step[2]) do
  out[#out + 1] = item
end
return out
