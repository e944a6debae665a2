-- Names the entries of one slice that a removal by tag would take.
--
-- KEYS  1 the tag's index
-- ARGV  1 what stands before a logical key in a key   2 what stands behind it
--       3 ZSCAN cursor   4 COUNT   5 the tag   6 what stands before a logical key in the key of
--       its companion
--
-- Returns {next ZSCAN cursor, logical key, …}
local step = redis.call('ZSCAN', KEYS[1], ARGV[3], 'COUNT', ARGV[4])
local found, out = step[2], { step[1] }
for i = 1, #found, 2 do
  local entry = ARGV[1] .. found[i] .. ARGV[2]
  if redis.call('EXISTS', entry) == 1 and not retagged(entry, ARGV[6] .. found[i] .. ARGV[2], ARGV[5]) then
    out[#out + 1] = found[i]
  end
end
return out
