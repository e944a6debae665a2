-- Takes the next dirty keys of a release. What is taken rests; a key whose rest is over and that is
-- still dirty goes to the head of the queue. When nothing is dirty and nothing rests the drain is
-- over, in the same step: whatever is noted later finds no lease.
--
-- KEYS  1 the dirty keys' numbers   2 the queue   3 the resting keys   4 the releases with dirty keys
--       5 the lease
-- ARGV  1 the drain's token   2 the release   3 how many keys   4 how long they rest, in milliseconds
--
-- Returns {'lost'} when another has the lease, {'empty'}, {'wait', milliseconds until a key's rest is
-- over}, or {'keys', key, number, key, number, …}.
local atOnce = 1000
if redis.call('GET', KEYS[5]) ~= ARGV[1] then
  return {'lost'}
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, atOnce)) do
  redis.call('ZREM', KEYS[3], key)
  if redis.call('HEXISTS', KEYS[1], key) == 1 then
    redis.call('ZADD', KEYS[2], -atOnce, key)
  end
end
local taken = redis.call('ZPOPMIN', KEYS[2], ARGV[3])
if #taken > 0 then
  local reply = {'keys'}
  for i = 1, #taken, 2 do
    local number = redis.call('HGET', KEYS[1], taken[i])
    if number then
      redis.call('ZADD', KEYS[3], now + tonumber(ARGV[4]), taken[i])
      reply[#reply + 1] = taken[i]
      reply[#reply + 1] = number
    end
  end
  return reply
end
local first = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
if #first > 0 then
  return {'wait', string.format('%.0f', math.max(1, tonumber(first[2]) - now + 1))}
end
redis.call('DEL', KEYS[1], KEYS[5])
redis.call('SREM', KEYS[4], ARGV[2])
return {'empty'}
