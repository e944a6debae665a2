-- Removes one slice of a tag's entries in the cache Redis. Their members stay in the index, with
-- the time of the removal as a negative score, and a prune forgets them later: whoever copied
-- such an entry elsewhere while it was there can still learn that it had the tag, and whoever
-- had listed an entry just before this and sets it just after is found by the next removal. An
-- entry that was put again without the tag stays, and its member is marked all the same.
--
-- KEYS  1 the tag's index; of another namespace when a copy from there is looked through
-- ARGV  1 what stands before a logical key in a key   2 what stands behind it
--       3 ZSCAN cursor   4 COUNT   5 1 to mark the members, 0 for another namespace's
--       6 the tag   7 what stands before a logical key in the key of its companion
--
-- Returns {next ZSCAN cursor, entries that were there}.
local step = redis.call('ZSCAN', KEYS[1], ARGV[3], 'COUNT', ARGV[4])
local found = step[2]
local now = redis.call('TIME')
local gone = '-' .. now[1] .. string.format('%03d', math.floor(tonumber(now[2]) / 1000))
local removed = 0
for i = 1, #found, 2 do
  local entry, there = ARGV[1] .. found[i] .. ARGV[2], 0
  if not retagged(entry, ARGV[7] .. found[i] .. ARGV[2], ARGV[6]) then
    there = redis.call('UNLINK', entry)
  end
  if ARGV[5] == '1' and (there == 1 or string.sub(found[i + 1], 1, 1) ~= '-') then
    redis.call('ZADD', KEYS[1], gone, found[i])
  end
  removed = removed + there
end
return {step[1], removed}
