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
local stay, deleted = ARGV[4], 0
for _, key in ipairs(step[2]) do
  if stay == '' or string.sub(key, 1, #stay) ~= stay then
    deleted = deleted + redis.call('UNLINK', key)
  end
end
return { step[1], deleted }
