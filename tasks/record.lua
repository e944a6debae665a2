-- Records one group of invalidations: from its reply on they cannot be lost.
--
-- KEYS  1 log:meta   2 log   3 log:prefixes   4 pending   5 live
-- ARGV  1 an epoch, taken when the log has none yet
--       2 the record (unique JSON): the member of pending
--       3 the channel that nudges the workers
--       4 how many calls the record holds: it takes as many numbers, and its own is the first
--       5 the epoch that the caller has seen, or '' when it has seen none
--       6 the highest number that it has seen
--       7… the targets as log members: k:<key>, t:<tag>, p:<prefix>
--
-- Returns {number, epoch, releases that are live}, all strings. A record that is still pending
-- (its reply was lost and the caller asks again) keeps its number. Returns {'lost', '', ''}, and
-- records nothing, when this is not the log that the caller has seen, or not all of it.
local meta, log, prefixes, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local now = redis.call('TIME')
local clock = tonumber(now[1]) * 1000000 + tonumber(now[2])
local state = redis.call('HMGET', meta, 'epoch', 'last')
local epoch, last = state[1], tonumber(state[2] or '0')
if ARGV[5] ~= '' and (epoch ~= ARGV[5] or last < tonumber(ARGV[6])) then
  return {'lost', '', ''}
end
local live = tostring(redis.call('SCARD', KEYS[5]))
if not epoch then
  epoch = ARGV[1]
  redis.call('HSET', meta, 'epoch', epoch, 'floor', string.format('%.0f', clock - 1))
end
local known = redis.call('ZSCORE', pending, ARGV[2])
if known then
  return {string.format('%.0f', tonumber(known)), epoch, live}
end
local first = math.max(last + 1, clock)
local number = string.format('%.0f', first)
redis.call('HSET', meta, 'last', string.format('%.0f', first + tonumber(ARGV[4]) - 1))
-- Many members a command: one command a target costs the server twice as much.
local args, n = {}, 0
for i = 7, #ARGV do
  local member = ARGV[i]
  if string.sub(member, 1, 2) == 'p:' then
    redis.call('ZADD', prefixes, number, member)
  else
    args[n + 1], args[n + 2] = number, member
    n = n + 2
    if n == 1000 then
      redis.call('ZADD', log, unpack(args, 1, n))
      n = 0
    end
  end
end
if n > 0 then
  redis.call('ZADD', log, unpack(args, 1, n))
end
redis.call('ZADD', pending, number, ARGV[2])
redis.call('PUBLISH', ARGV[3], number)
return {number, epoch, live}
