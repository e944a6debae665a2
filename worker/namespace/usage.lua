-- Counts one slice of a namespace and weighs some of it.
-- KEYS: the keys to count; none to take those of the next step of a SCAN
-- ARGV: 1 cursor, 2 MATCH pattern, 3 COUNT (all three unused with KEYS), 4 what reserved keys begin
--       with, 5 one entry in how many is weighed, 0 for none, 6… what the keys of the entries to count begin with
-- Returns {next cursor, entries, weighed entries, their bytes, bytes of reserved keys, other
-- entries, key, …}: the keys are those weighed
local nextcursor, keys = '0', KEYS
if #KEYS == 0 then
  local step = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
  nextcursor, keys = step[1], step[2]
end
local reserved, stride = ARGV[4], tonumber(ARGV[5])
local entries, weighed, bytes, others, skipped = 0, 0, 0, 0, 0
local out = { nextcursor, 0, 0, 0, 0, 0 }

local function wanted(key)
  for i = 6, #ARGV do
    if string.sub(key, 1, #ARGV[i]) == ARGV[i] then return true end
  end
  return false
end

for _, key in ipairs(keys) do
  if string.sub(key, 1, #reserved) == reserved then
    others = others + (redis.call('MEMORY', 'USAGE', key) or 0)
  elseif not wanted(key) then
    skipped = skipped + 1
  else
    if stride > 0 and entries % stride == 0 then
      weighed = weighed + 1
      bytes = bytes + (redis.call('MEMORY', 'USAGE', key) or 0)
      out[#out + 1] = key
    end
    entries = entries + 1
  end
end
out[2], out[3], out[4], out[5], out[6] = entries, weighed, bytes, others, skipped
return out
