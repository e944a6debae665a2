-- Lists the keys of one step of a SCAN.
-- KEYS: none
-- ARGV: 1 cursor, 2 MATCH pattern, 3 COUNT
-- Returns {next cursor, key, …}
local step = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local out = { step[1] }
for _, key in ipairs(step[2]) do
  out[#out + 1] = key
end
return out
