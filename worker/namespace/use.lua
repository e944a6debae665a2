-- Tells how much the entries of one slice are used, without using them.
-- KEYS: none
-- ARGV: 1 cursor, 2 MATCH pattern, 3 COUNT, 4 what reserved keys begin with
-- Returns {next cursor, 'freq' or 'idle', key, number, …}: under an LFU policy the frequency
-- counter, otherwise the seconds since the last use
local step = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local reserved = ARGV[4]
local ask = 'FREQ'
local out = { step[1], 'freq' }
for _, key in ipairs(step[2]) do
  if string.sub(key, 1, #reserved) ~= reserved then
    local n = redis.pcall('OBJECT', ask, key)
    if type(n) == 'table' and n.err and ask == 'FREQ' then
      ask, out[2] = 'IDLETIME', 'idle'
      n = redis.pcall('OBJECT', ask, key)
    end
    if type(n) == 'number' then
      out[#out + 1] = key
      out[#out + 1] = n
    end
  end
end
return out
