-- Makes keys of a release dirty.
--
-- KEYS  1 the dirty keys' numbers   2 the queue   3 the resting keys   4 the releases with dirty keys
-- ARGV  1 the invalidation's number   2 the release
--       3… for each key: the key, its rank (the lowest is taken first),
--       '1', or '0' for a key that only counts where it is dirty already
--
-- Returns how many keys are dirty by this number now.
local noted = 0
local number = tonumber(ARGV[1])
for i = 3, #ARGV, 3 do
  local key, rank = ARGV[i], ARGV[i + 1]
  local known = redis.call('HGET', KEYS[1], key)
  if known or ARGV[i + 2] == '1' then
    if not known or tonumber(known) < number then
      redis.call('HSET', KEYS[1], key, ARGV[1])
    end
    if not redis.call('ZSCORE', KEYS[3], key) then
      local has = redis.call('ZSCORE', KEYS[2], key)
      if not has or tonumber(rank) < tonumber(has) then
        redis.call('ZADD', KEYS[2], rank, key)
      end
    end
    noted = noted + 1
  end
end
if noted > 0 then
  redis.call('SADD', KEYS[4], ARGV[2])
end
return noted
