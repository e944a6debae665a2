-- Removes one slice of a tag's entries, and their members from its index, in the cache Redis.
-- One step: an entry can never lose its place in the index and stay.
--
-- KEYS  1 the tag's index
-- ARGV  1 what stands before a logical key in a key   2 what stands behind it   3 members a slice
--
-- Returns {members taken, entries that were there}.
local members = redis.call('ZRANGE', KEYS[1], 0, tonumber(ARGV[3]) - 1)
local removed = 0
for _, member in ipairs(members) do
  removed = removed + redis.call('UNLINK', ARGV[1] .. member .. ARGV[2])
end
if #members > 0 then
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, #members - 1)
end
return {#members, removed}
