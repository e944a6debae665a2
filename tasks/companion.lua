-- Defines retagged(entry, companion, tag): true when the companion shows that the entry's present
-- value was put without that tag; false when in doubt. Both are keys.
local function retagged(entry, companion, tag)
  local note = redis.call('MGET', companion)[1] -- MGET takes another type for nothing
  if not note or string.find(note, '\n' .. tag .. '\n', 1, true) then return false end
  local expiry = redis.call('PEXPIRETIME', entry)
  if expiry < 0 or expiry ~= redis.call('PEXPIRETIME', companion) then return false end
  local value = redis.call('MGET', entry)[1]
  return value and string.sub(redis.sha1hex(value), 1, 16) == string.sub(note, 1, 16)
end

