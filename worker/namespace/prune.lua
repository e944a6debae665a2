-- Drops dead members from part of one tag's index. A member whose score is past and whose
-- entry is gone is dropped. A member without an expiry whose entry is missing may belong to a
-- writer that is just about to set the entry: it gets a last date, and a later run decides.
-- A member whose entry outlived its score gets the entry's own expiry. One that an invalidation
-- marked as gone (a negative score: when) stays until the mark is old. One whose entry was put
-- again without the tag is marked, and is dropped when the mark is old.
-- KEYS: 1 the index
-- ARGV: 1 ZSCAN cursor, 2 COUNT, 3 the namespace's prefix, 4 what keys end with, 5 now, 6 the
--       last date (both Unix ms), 7 the score above which a mark is old, 8 the tag, 9 what
--       stands before a logical key in the key of its companion
-- Returns {next ZSCAN cursor, members dropped}
local now, old = tonumber(ARGV[5]), tonumber(ARGV[7])
local step = redis.call('ZSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local found, dropped = step[2], 0
for i = 1, #found, 2 do
  local member, score = found[i], tonumber(found[i + 1])
  local forever = score == nil or score == math.huge -- not every Lua reads 'inf' as a number
  local marked = not forever and score < 0
  if forever or marked and score > old or not marked and score <= now then
    local expiry = redis.call('PEXPIRETIME', ARGV[3] .. member .. ARGV[4])
    if expiry == -2 and forever then
      redis.call('ZADD', KEYS[1], 'XX', ARGV[6], member)
    elseif expiry == -2 then
      dropped = dropped + redis.call('ZREM', KEYS[1], member)
    elseif retagged(ARGV[3] .. member .. ARGV[4], ARGV[9] .. member .. ARGV[4], ARGV[8]) then
      if marked then
        dropped = dropped + redis.call('ZREM', KEYS[1], member)
      else
        redis.call('ZADD', KEYS[1], 'XX', '-' .. ARGV[5], member)
      end
    elseif not forever then
      redis.call('ZADD', KEYS[1], 'XX', expiry == -1 and '+inf' or string.format('%.0f', expiry), member)
    end
  end
end
return { step[1], dropped }
