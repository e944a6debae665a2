-- Deletes task hashes that no list of their queue knows: one slice of a scan.
--
-- asynq's "archive all" drops the oldest tasks from the archive without deleting them, and a
-- result written after a task's end makes its hash anew.
--
-- KEYS  1 the queue's archived ZSET   2 its completed ZSET
-- ARGV  1 cursor   2 MATCH pattern of the queue's task hashes   3 what those keys begin with
--       4 COUNT
--
-- Returns {next cursor ('0' at the end), how many were deleted}.
local lists = {archived = KEYS[1], completed = KEYS[2]}
local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[4])
local deleted = 0
for _, key in ipairs(page[2]) do
  if redis.call('TYPE', key).ok == 'hash' then
    local task = redis.call('HMGET', key, 'msg', 'state')
    local list = task[2] and lists[task[2]]
    local id = string.sub(key, #ARGV[3] + 1)
    if not task[1] or (list and not redis.call('ZSCORE', list, id)) then
      deleted = deleted + redis.call('DEL', key)
    end
  end
end
return {page[1], deleted}
