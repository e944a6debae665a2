-- Stands before scripts that read hashes.

-- Whether this server knows expiries of fields: asked of the server that runs the script, once
-- a call, and not by trying, which it would count as an error. No server knew them before scripts
-- were told its version (Redis 7.0).
local fieldsexpire
if not redis.REDIS_VERSION_NUM then fieldsexpire = false end
local function knows(key)
  if fieldsexpire == nil then
    local info = redis.pcall('COMMAND', 'INFO', 'HPEXPIRETIME')
    if info.err then -- a user without the right to ask
      local tried = redis.pcall('HPEXPIRETIME', key, 'FIELDS', 1, '')
      fieldsexpire = not (tried.err and string.find(string.lower(tried.err), 'unknown', 1, true))
    else
      fieldsexpire = type(info[1]) == 'table'
    end
  end
  return fieldsexpire
end

-- Expiries of some fields of a hash in Unix ms, -1 for never, -2 for a field that is gone; nil
-- when none of the hash's fields can have one.
local function expiries(key, names)
  if not knows(key) or redis.call('OBJECT', 'ENCODING', key) == 'listpack' then return nil end
  local out = {}
  for from = 1, #names, 1000 do -- unpack takes some thousands at most
    local part = { unpack(names, from, math.min(from + 999, #names)) }
    local times = redis.call('HPEXPIRETIME', key, 'FIELDS', #part, unpack(part)) or {}
    for i = 1, #part do
      out[#out + 1] = times[i] or -2 -- some servers have nothing to say of a key that is gone
    end
  end
  return out
end

