-- Reads keys: types, expiries and values. (fields.lua stands before it.)
-- KEYS: the keys to read; none where a Cluster's server is to read keys of several of its slots
-- ARGV: 1 bytes above which a value is 'big', 2 bytes after which the rest is 'later', 3… the keys
--       to read instead of KEYS
-- Returns {item, …}, nothing of keys that there are none of; an item is one of
--   {key, type, expiry, value}  expiry in Unix ms, -1 for never; value a string or the
--                               collection's items, a DUMP payload for types not listed here
--   {key, 'hash', expiry, value, expiries}  a hash some of whose fields expire: each field's
--                               expiry in Unix ms, -1 for never
--   {key, 'big'}                left out: to be read in chunks
--   {key, 'later'}              left out: to be read by another call
--   {key, 'elsewhere'}          left out: its slot is being moved to another server, or has been
local limit, budget = tonumber(ARGV[1]), tonumber(ARGV[2])

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

local keys = KEYS
if #KEYS == 0 then
  keys = {}
  for i = 3, #ARGV do keys[i - 2] = ARGV[i] end
end

local out, used, full = {}, 0, false
for _, key in ipairs(keys) do
  local found = full or redis.pcall('TYPE', key)
  local kind = not full and found.ok
  if full then
    out[#out + 1] = { key, 'later' }
  elseif found.err then
    if not string.find(found.err, 'non local key', 1, true) then return found end
    out[#out + 1] = { key, 'elsewhere' }
  elseif kind ~= 'none' then
    local value, weight
    if kind == 'string' then
      -- One call tells the value and that it is not too large: most entries are strings.
      value = redis.call('GETRANGE', key, 0, ARGV[1])
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
