-- Deletes one slice of a namespace.
-- KEYS: none, or 1 the fence
-- ARGV: 1 cursor, 2 MATCH pattern, 3 COUNT, 4 what keys that stay begin with ('' when none
--       stay), 5 the token that the fence must hold (unused without a fence)
-- Returns {next cursor, deleted}; deleted is -1, and nothing was deleted, when the fence
-- holds another token
if KEYS[1] and redis.call('GET', KEYS[1]) ~= ARGV[5] then
  return { '0', -1 }
end
local step = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local stay, goes, deleted = ARGV[4], {}, 0
for i, key in ipairs(step[2]) do
  if stay == '' or string.sub(key, 1, #stay) ~= stay then
    goes[#goes + 1] = key
  end
  if #goes == 1000 or #goes > 0 and i == #step[2] then -- a call costs as much as some keys do
    deleted = deleted + redis.call('UNLINK', unpack(goes))
    goes = {}
  end
end
return { step[1], deleted }
