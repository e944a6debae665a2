-- Carries part of one tag's index to another namespace: the members that the copied families
-- hold and that are entries in either namespace. A score never falls.
-- KEYS: 1 the source's index, 2 the destination's index
-- ARGV: 1 ZSCAN cursor, 2 COUNT, 3 the source's prefix, 4 the destination's prefix, 5 what
--       keys end with, 6… logical prefixes of the entries to carry
-- Returns {next ZSCAN cursor, members carried}
local from, to, suffix = ARGV[3], ARGV[4], ARGV[5]

local function wanted(logical)
  for i = 6, #ARGV do
    if string.sub(logical, 1, #ARGV[i]) == ARGV[i] then return true end
  end
  return false
end

local step = redis.call('ZSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local found, carried = step[2], 0
for i = 1, #found, 2 do
  local member, score = found[i], found[i + 1]
  -- The source's entry may be gone since it was copied, so either entry counts.
  if wanted(member) and redis.call('EXISTS', from .. member .. suffix, to .. member .. suffix) > 0 then
    redis.call('ZADD', KEYS[2], 'GT', score, member)
    carried = carried + 1
  end
end
return { step[1], carried }
