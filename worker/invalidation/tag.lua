-- Removes one slice of a tag's entries in the cache Redis. Their members stay in the index, with
-- the time of the removal as a negative score: whoever copied such an entry elsewhere while it
-- was there can still learn that it had the tag. A prune forgets them later.
--
-- KEYS  1 the tag's index
-- ARGV  1 what stands before a logical key in a key   2 what stands behind it   3 members a slice
--       4 the lowest score to take: 0 for the members that may have an entry; (-T, with T the
--         time in Unix milliseconds at which a replay began, for those removed before as well
--
-- Returns {members taken, entries that were there}.
local members = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[4], '+inf', 'LIMIT', 0, ARGV[3])
local now = redis.call('TIME')
local gone = '-' .. now[1] .. string.format('%03d', math.floor(tonumber(now[2]) / 1000))
local removed = 0
for _, member in ipairs(members) do
  removed = removed + redis.call('UNLINK', ARGV[1] .. member .. ARGV[2])
  redis.call('ZADD', KEYS[1], gone, member)
end
return {#members, removed}
