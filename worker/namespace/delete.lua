-- Deletes one slice of a namespace.
-- KEYS: none, or 1 the fence
-- ARGV: 1 cursor, 2 MATCH pattern, 3 COUNT, 4 what keys that stay begin with ('' when none
--       stay), 5 how many keys one command deletes: 1 on a Cluster, where all of one are of one
--       slot, 6 the token that the fence must hold, 7 the run ID of the process that it was found
--       to hold it in, '' when the server tells none (both unused without a fence)
-- Returns {next cursor, deleted}; nothing was deleted when that is -1, because the fence holds
-- another token, or -2, because the server is another process and may have forgotten the fence's
if KEYS[1] then
  if ARGV[7] ~= '' and not string.find(redis.call('INFO', 'server'), 'run_id:' .. ARGV[7], 1, true) then
    return { '0', -2 }
  end
  if redis.call('GET', KEYS[1]) ~= ARGV[6] then return { '0', -1 } end
end
local step = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local stay, most, goes, deleted = ARGV[4], tonumber(ARGV[5]), {}, 0
for i, key in ipairs(step[2]) do
  if stay == '' or string.sub(key, 1, #stay) ~= stay then
    goes[#goes + 1] = key
  end
  if #goes == most or #goes > 0 and i == #step[2] then
    deleted = deleted + redis.call('UNLINK', unpack(goes))
    goes = {}
  end
end
return { step[1], deleted }
