-- Changes one member of a tag's index as a prune decided, unless somebody has listed it again since.
-- KEYS: 1 the index
-- ARGV: 1 the member, 2 the score that it had, 3 its score from now on; '' to drop it
-- Returns 1 when it was dropped, else 0
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or score ~= ARGV[2] then return 0 end
if ARGV[3] == '' then return redis.call('ZREM', KEYS[1], ARGV[1]) end
redis.call('ZADD', KEYS[1], 'XX', ARGV[3], ARGV[1])
return 0
