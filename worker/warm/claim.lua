-- Makes a run the one under way for its release, unless another is. It takes the place of a run
-- that nothing has touched for long.
--
-- KEYS  1 the release's runs   2 the run's record
-- ARGV  1 run   2 what every run's record key begins with
--       3 µs after which an untouched run counts as dead   4 who asked for the run (JSON)
--
-- Returns {'ok', ''}, {'absent', ''} when the run has no record, {'over', its status} when it has
-- ended, or {'busy', the other run}.
local status = redis.call('HGET', KEYS[2], 'status')
if not status then
  return {'absent', ''}
end
if status ~= 'queued' and status ~= 'running' then
  return {'over', status}
end
local now = redis.call('TIME')
local us = tonumber(now[1]) * 1000000 + tonumber(now[2])
for _, other in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if other ~= ARGV[1] then
    -- Every record of the app shares one slot, so a name made here is one the script may touch.
    local record = redis.call('HMGET', ARGV[2] .. other, 'status', 'touched_at')
    if not record[1] then
      redis.call('ZREM', KEYS[1], other)
    elseif record[1] == 'running' then
      if us - tonumber(record[2] or '0') < tonumber(ARGV[3]) then
        return {'busy', other}
      end
      redis.call('HSET', ARGV[2] .. other, 'status', 'abandoned', 'error', 'taken over by run ' .. ARGV[1])
    end
  end
end
local at = string.format('%.0f', us)
redis.call('ZADD', KEYS[1], 'NX', at, ARGV[1])
redis.call('HSETNX', KEYS[2], 'started_at', at)
redis.call('HSET', KEYS[2], 'status', 'running', 'touched_at', at, 'by', ARGV[4])
return {'ok', ''}
