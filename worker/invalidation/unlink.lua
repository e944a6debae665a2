-- Removes keys, and says of each whether it was there.
--
-- KEYS  1… the keys
--
-- Returns a string with one character a key: 1 or 0.
local there = {}
for i, key in ipairs(KEYS) do
  there[i] = redis.call('UNLINK', key)
end
return table.concat(there, '') .. '' -- a string, also of one number
