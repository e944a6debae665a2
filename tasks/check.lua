-- Says which entries were invalidated after a mark.
--
-- KEYS  1 log:meta   2 log   3 log:prefixes   4 live
-- ARGV  1 mark   2 the mark's epoch   3 the release written to, or '' to leave the live set out
--       4… for each entry: its logical key, the number of its tags, its tags
--
-- Returns a list with 1 (invalidated since) or 0 for each entry. All are 1 when the log cannot
-- vouch for the mark (another epoch, a mark below the floor), when the log is of another version than
-- this script knows, or when the release is not live: its namespace receives no invalidations, so
-- nothing may be stored there.
local mark = tonumber(ARGV[1])
local state = redis.call('HMGET', KEYS[1], 'epoch', 'floor', 'version')
local lost = state[1] ~= ARGV[2] or mark < tonumber(state[2] or '0') or (state[3] or '1') ~= '1'
  or (ARGV[3] ~= '' and redis.call('SISMEMBER', KEYS[4], ARGV[3]) == 0)

local prefixes = {}
if not lost then
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[1], '+inf')) do
    prefixes[#prefixes + 1] = string.sub(member, 3)
  end
end

local function since(member)
  local number = redis.call('ZSCORE', KEYS[2], member)
  return number and tonumber(number) > mark
end

local function invalidated(key, first, last)
  if lost or since('k:' .. key) then
    return true
  end
  for i = first, last do
    if since('t:' .. ARGV[i]) then
      return true
    end
  end
  for _, prefix in ipairs(prefixes) do
    if string.sub(key, 1, #prefix) == prefix then
      return true
    end
  end
  return false
end

local verdicts, i = {}, 4
while i <= #ARGV do
  local tags = tonumber(ARGV[i + 1])
  verdicts[#verdicts + 1] = invalidated(ARGV[i], i + 2, i + 1 + tags) and 1 or 0
  i = i + 2 + tags
end
return verdicts
