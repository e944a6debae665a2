-- Renews a worker's lease on an origin and grants it a part of the two ceilings. What is granted
-- to all never adds up to more than a ceiling.
--
-- KEYS  1 the origin's hash: hold → µs until which nobody may ask it; w:<worker> → "end permits wanted rate"
-- ARGV  1 worker   2 length of the lease, µs   3 requests that all may have under way
--       4 requests a second of all, 0 for any   5 requests that the worker has use for
--       6 requests that it has under way   7 µs for which nobody may ask the origin, 0 for none
--       8 1 when the worker leaves
--
-- Returns {permits, rate (a string), µs left of the hold, now in µs}.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
local mine = 'w:' .. ARGV[1]
local most, rate = tonumber(ARGV[3]), tonumber(ARGV[4])
local others, permits, rates, hold = {}, 0, 0, 0
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  if name == 'hold' then
    hold = tonumber(value)
  elseif name ~= mine then
    local ends, has, wants, persecond = string.match(value, '^(%S+) (%S+) (%S+) (%S+)$')
    if tonumber(ends) <= now then
      redis.call('HDEL', KEYS[1], name)
    else
      others[#others + 1] = {tonumber(has), tonumber(wants)}
      permits = permits + tonumber(has)
      rates = rates + tonumber(persecond)
    end
  end
end
if tonumber(ARGV[7]) > 0 then
  hold = math.max(hold, now + tonumber(ARGV[7]))
end
if hold > now then
  redis.call('HSET', KEYS[1], 'hold', string.format('%.0f', hold))
else
  hold = now
  redis.call('HDEL', KEYS[1], 'hold')
end
if ARGV[8] == '1' then
  redis.call('HDEL', KEYS[1], mine)
  return {0, '0', hold - now, now}
end
local fair = math.max(math.floor(most / (#others + 1)), 1)
local hungry = false
for _, o in ipairs(others) do
  hungry = hungry or o[1] < math.min(o[2], fair)
end
local wants = tonumber(ARGV[5])
local grant = math.min(wants, most - permits)
if hungry then
  grant = math.min(grant, fair)
end
grant = math.max(grant, 0)
local share = 0
if rate > 0 then
  share = math.max(math.min(rate / (#others + 1), rate - rates), 0)
end
-- What is still under way is given back when it is not any more.
redis.call('HSET', KEYS[1], mine, string.format('%.0f %d %d %.6f', now + tonumber(ARGV[2]), math.max(grant, tonumber(ARGV[6])), wants, share))
redis.call('PEXPIRE', KEYS[1], math.ceil(math.max(tonumber(ARGV[2]), hold - now) / 1000) + 60000)
return {grant, tostring(share), hold - now, now}
