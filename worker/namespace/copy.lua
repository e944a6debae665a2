-- Copies one slice of a namespace to another one, expiries kept. What exists there already is
-- left as it is. What holds the source's prefix in its value, or cannot be looked into, is
-- left out: its copy would point at the source.
-- KEYS: the keys to copy; none to take those of the next step of a SCAN
-- ARGV: 1 cursor, 2 MATCH pattern, 3 COUNT (all three unused with KEYS),
--       4 bytes above which a value is big, 5 bytes after which the rest is left for later,
--       6 the source's prefix, 7 the destination's prefix, 8 what reserved logical keys begin
--       with, 9… logical prefixes of the entries to copy
-- Returns {next cursor, skipped, existed, {copied}, {referring}, {big}, {later}, {elsewhere}}:
-- counts of entries, lists of keys. Elsewhere are those whose copy this server cannot make: on a
-- Cluster, where the copy belongs to another server or slot, or either's slot is being moved
local limit, budget = tonumber(ARGV[4]), tonumber(ARGV[5])
local from, to, reserved = ARGV[6], ARGV[7], ARGV[8]

local items = {
  hash = function(key) return redis.call('HGETALL', key) end,
  list = function(key) return redis.call('LRANGE', key, 0, -1) end,
  set = function(key) return redis.call('SMEMBERS', key) end,
  zset = function(key) return redis.call('ZRANGE', key, 0, -1) end,
}

local function begins(s, prefix)
  return string.sub(s, 1, #prefix) == prefix
end

local function wanted(logical)
  if begins(logical, reserved) then return false end
  for i = 9, #ARGV do
    if begins(logical, ARGV[i]) then return true end
  end
  return false
end

local function refers(key, kind, value)
  if value then return string.find(value, from, 1, true) end
  if not items[kind] then return true end
  for _, item in ipairs(items[kind](key)) do
    if string.find(item, from, 1, true) then return true end
  end
  return false
end

local count = { hash = 'HLEN', list = 'LLEN', set = 'SCARD', zset = 'ZCARD' }

-- Bytes, or the time of as many: an item costs what half a kilobyte costs.
local function weigh(key, kind)
  if not count[kind] then return 0 end
  return math.max(redis.call('MEMORY', 'USAGE', key) or 0, 512 * redis.call(count[kind], key))
end

local nextcursor, keys = '0', KEYS
if #KEYS == 0 then
  local step = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
  nextcursor, keys = step[1], step[2]
end

local skipped, existed, used, full = 0, 0, 0, false
local copied, referring, big, later, elsewhere = {}, {}, {}, {}, {}
for _, key in ipairs(keys) do
  local logical = string.sub(key, #from + 1)
  if not wanted(logical) then
    if not begins(logical, reserved) then skipped = skipped + 1 end
  elseif full then
    later[#later + 1] = key
  else
    -- One call tells that it is a string, its value, and that it is not too large: most entries are.
    local value, kind, weight = redis.pcall('GETRANGE', key, 0, ARGV[4]), 'string', nil
    if value == '' and redis.call('EXISTS', key) == 0 then
      kind, weight = 'none', 0
    elseif type(value) == 'string' then
      weight = #value
    else
      kind, value = redis.call('TYPE', key).ok, nil
      weight = weigh(key, kind)
    end
    if kind == 'none' then
      -- It has gone since it was listed.
    elseif weight > limit then
      big[#big + 1] = key
    elseif used > 0 and used + weight > budget then
      later[#later + 1] = key
      full = true -- the others would mostly be looked into in vain
    else
      used = used + weight
      if refers(key, kind, value) then
        referring[#referring + 1] = key
      else
        local done = redis.pcall('COPY', key, to .. logical)
        if done == 1 then
          copied[#copied + 1] = key
        elseif done == 0 then
          existed = existed + 1
        elseif string.find(done.err, 'non local key', 1, true) then
          elsewhere[#elsewhere + 1] = key
        else
          return done
        end
      end
    end
  end
end
return { nextcursor, skipped, existed, copied, referring, big, later, elsewhere }
