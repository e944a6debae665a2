-- Changes members of a tag's index that still have the score by which they were judged.
-- KEYS: 1 the index
-- ARGV: member, the score it had, its new score or '' to drop it, …
-- Returns {members dropped}
local function same(a, b) -- commands write one number in several ways
  local x, y = tonumber(a or ''), tonumber(b)
  return a == b or x ~= nil and x == y
end

local dropped = 0
for i = 1, #ARGV, 3 do
  if same(redis.call('ZSCORE', KEYS[1], ARGV[i]), ARGV[i + 1]) then
    if ARGV[i + 2] == '' then
      dropped = dropped + redis.call('ZREM', KEYS[1], ARGV[i])
    else
      redis.call('ZADD', KEYS[1], 'XX', ARGV[i + 2], ARGV[i])
    end
  end
end
return { dropped }
