-- Claims pending records for one worker, oldest first, so that others leave them alone. A claim
-- ends by itself: what a dead worker had claimed is claimed again by the next that asks. What is of a newer
-- version than the worker reads is left for one that does.
--
-- KEYS  1 pending   2 claims   3 the numbers left to the bulk lane
-- ARGV  1 at most so many records   2 and, but for the first, so many bytes of them
--       3 how long the claim holds, in µs   4 1 for the bulk lane's records, 0 for the others
--       5 the newest version that the worker reads: a record is JSON that begins with {"v":<version>
--
-- Returns {number and version of the oldest that was left for a newer worker, 0 for none,
-- number, record, number, record, …}.
local now = redis.call('TIME')
local clock = tonumber(now[1]) * 1000000 + tonumber(now[2])
local most, room, till = tonumber(ARGV[1]), tonumber(ARGV[2]), string.format('%.0f', clock + tonumber(ARGV[3]))
local newest, newer, version = tonumber(ARGV[5]), '0', '0'
local claimed = {}
local from = 0
while #claimed < 2 * most and room > 0 do
  local page = redis.call('ZRANGE', KEYS[1], from, from + 63, 'WITHSCORES')
  if #page == 0 then
    break
  end
  from = from + 64
  for i = 1, #page, 2 do
    local number = string.format('%.0f', tonumber(page[i + 1]))
    local v = string.match(page[i], '^{"v":(%d+)')
    if v and tonumber(v) > newest then
      if newer == '0' then
        newer, version = number, v
      end
    elseif redis.call('SISMEMBER', KEYS[3], number) == tonumber(ARGV[4]) and
      tonumber(redis.call('ZSCORE', KEYS[2], number) or '0') <= clock then
      room = room - #page[i]
      if #claimed >= 2 * most or (room < 0 and #claimed > 0) then
        break
      end
      redis.call('ZADD', KEYS[2], till, number)
      claimed[#claimed + 1] = number
      claimed[#claimed + 1] = page[i]
    end
  end
end
table.insert(claimed, 1, version)
table.insert(claimed, 1, newer)
return claimed
