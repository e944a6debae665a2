-- Compares the log with what a process has seen of it. A log that was lost, or that came back
-- without its last records, becomes another log: its epoch changes, so that no mark taken in the
-- old one is fresh.
--
-- KEYS  1 log:meta
-- ARGV  1 the epoch that was seen, or '' when none was   2 the highest number that was seen
--       3 an epoch, taken when a loss is found that nobody has found before
--
-- Returns {last, epoch, lost}, all strings: lost is 1 when this is not the log that was seen, or
-- not all of it, else 0; the epoch is '' while the log has none. Of a loss log:meta keeps when it
-- was found (lost_at), and the numbers between which records may be missing (lost_from, lost_to).
local meta, seen = KEYS[1], tonumber(ARGV[2])
local state = redis.call('HMGET', meta, 'epoch', 'last', 'lost_at', 'lost_to')
local epoch, last = state[1] or '', tonumber(state[2] or '0')
local function text(number)
  return string.format('%.0f', number)
end
if ARGV[1] == '' or epoch == ARGV[1] and last >= seen then
  return {text(last), epoch, '0'}
end
local now = redis.call('TIME')
local clock = tonumber(now[1]) * 1000000 + tonumber(now[2])
if epoch == '' or epoch == ARGV[1] then
  local number = math.max(last, seen, clock)
  redis.call('HSET', meta, 'epoch', ARGV[3], 'last', text(number), 'floor', text(number),
    'lost_at', text(clock), 'lost_from', text(last), 'lost_to', text(seen))
  return {text(number), ARGV[3], '1'}
end
-- Another process was first: with the loss, or with a new log when it knew of no other.
if not state[3] then
  redis.call('HSET', meta, 'lost_at', text(clock), 'lost_from', '0', 'lost_to', text(seen))
elseif seen > tonumber(state[4]) then
  redis.call('HSET', meta, 'lost_to', text(seen))
end
return {text(last), epoch, '1'}
