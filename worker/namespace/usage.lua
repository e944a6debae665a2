-- Counts one slice of a namespace and weighs some of it.
-- KEYS: none
-- ARGV: 1 cursor, 2 MATCH pattern, 3 COUNT, 4 what reserved keys begin with, 5 one entry in how
--       many is weighed (all are in the first slice, which may be the only one), 6… what the keys
--       of the entries to count begin with
-- Returns {next cursor, entries, weighed entries, their bytes, bytes of reserved keys, other
-- entries, reserved keys, key, …}: the keys are those weighed
local step = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local reserved, stride = ARGV[4], ARGV[1] == '0' and 1 or tonumber(ARGV[5])
local entries, weighed, bytes, others, skipped, own = 0, 0, 0, 0, 0, 0
local out = { step[1], 0, 0, 0, 0, 0, 0 }

local function wanted(key)
  for i = 6, #ARGV do
    if string.sub(key, 1, #ARGV[i]) == ARGV[i] then return true end
  end
  return false
end

for _, key in ipairs(step[2]) do
  if string.sub(key, 1, #reserved) == reserved then
    own = own + 1
    others = others + (redis.call('MEMORY', 'USAGE', key) or 0)
  elseif not wanted(key) then
    skipped = skipped + 1
  else
    if entries % stride == 0 then
      weighed = weighed + 1
      bytes = bytes + (redis.call('MEMORY', 'USAGE', key) or 0)
      out[#out + 1] = key
    end
    entries = entries + 1
  end
end
out[2], out[3], out[4], out[5], out[6], out[7] = entries, weighed, bytes, others, skipped, own
return out
