-- Reads one slice of a namespace: keys, types, expiries and values. (fields.lua stands before it.)
-- KEYS: the keys to read; none to take those of the next step of a SCAN
-- ARGV: 1 cursor, 2 MATCH pattern, 3 COUNT (all three unused with KEYS),
--       4 bytes above which a value is 'big', 5 bytes after which the rest is 'later'
-- Returns {next cursor, item, …}; an item is one of
--   {key, type, expiry, value}  expiry in Unix ms, -1 for never; value a string or the
--                               collection's items, a DUMP payload for types not listed here
--   {key, 'hash', expiry, value, expiries}  a hash some of whose fields expire: each field's
--                               expiry in Unix ms, -1 for never
--   {key, 'big'}                left out: to be read in chunks
--   {key, 'later'}              left out: to be read by another call
local limit, budget = tonumber(ARGV[4]), tonumber(ARGV[5])

local read = {
  hash = function(key) return redis.call('HGETALL', key) end,
  list = function(key) return redis.call('LRANGE', key, 0, -1) end,
  set = function(key) return redis.call('SMEMBERS', key) end,
  zset = function(key) return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
}

-- Expiries of a hash's fields, nil when none of them expires.
local function expiriesof(key, flat)
  local names = {}
  for i = 1, #flat, 2 do names[#names + 1] = flat[i] end
  local times = expiries(key, names) or {}
  for _, at in ipairs(times) do
    if at ~= -1 then return times end
  end
end

local count = { hash = 'HLEN', list = 'LLEN', set = 'SCARD', zset = 'ZCARD' }

-- Bytes, or the time of as many: an item costs what half a kilobyte costs. What cannot be
-- read in chunks is never big.
local function weigh(key, kind)
  local bytes = redis.call('MEMORY', 'USAGE', key) or 0
  if not count[kind] then return math.min(bytes, limit) end
  return math.max(bytes, 512 * redis.call(count[kind], key))
end

local nextcursor, keys = '0', KEYS
if #KEYS == 0 then
  local step = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
  nextcursor, keys = step[1], step[2]
end

local out, used, full = { nextcursor }, 0, false
for _, key in ipairs(keys) do
  local kind = full or redis.call('TYPE', key).ok
  if full then
    out[#out + 1] = { key, 'later' }
  elseif kind ~= 'none' then
    local value, weight
    if kind == 'string' then
      -- One call tells the value and that it is not too large: most entries are strings.
      value = redis.call('GETRANGE', key, 0, ARGV[4])
      weight = #value
    else
      weight = weigh(key, kind)
    end
    if weight > limit then
      out[#out + 1] = { key, 'big' }
    elseif used > 0 and used + weight > budget then
      out[#out + 1] = { key, 'later' }
      full = true -- the others would mostly be read in vain
    else
      used = used + weight
      local expiry = redis.call('PEXPIRETIME', key)
      if kind == 'string' then
        out[#out + 1] = { key, kind, expiry, value }
      elseif read[kind] then
        value = read[kind](key)
        if #value > 0 then -- a hash is there a little longer than its last field
          out[#out + 1] = { key, kind, expiry, value, kind == 'hash' and expiriesof(key, value) or nil }
        end
      else
        out[#out + 1] = { key, 'dump', expiry, redis.call('DUMP', key) }
      end
    end
  end
end
return out
