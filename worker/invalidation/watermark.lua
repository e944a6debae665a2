-- Looks at one server of the cache Redis, and notes there up to where the log is applied on it. The
-- note is replicated and saved behind all that was removed before it: a server that has the note has
-- those removals too, whatever else a failover or an old file made it lose.
--
-- KEYS  1 the watermark of this server
--       2 how many replicas it has had, behind its identity; none on a Cluster, which knows itself
-- ARGV  1 the servers that are known to lack nothing, each as its identity, separated by spaces
--       2 the note
--
-- Returns {identity, note}: the note is the one from before, '' without one. A server that is not among
-- the known ones keeps its note: a replay has to start from there first. The identity is '' and
-- nothing is noted on a server that does not tell its process (embedded ones).
local function info(section)
  local ok, text = pcall(redis.call, 'INFO', section)
  return ok and type(text) == 'string' and text or ''
end
local replication = info('replication')
-- Another process has another run_id. One that stays and is promoted, perhaps for the second time,
-- takes another replid.
local process, history = string.match(info('server'), 'run_id:(%w+)'), string.match(replication, 'master_replid:(%w+)')
if not process or not history then
  return {'', ''}
end
local identity = process .. ':' .. history
if KEYS[2] then
  local _, replicas = string.gsub(replication, 'state=online', '')
  local had = tonumber(string.match(redis.call('GET', KEYS[2]) or '', '^' .. identity .. ' (%d+)$'))
  if replicas > (had or 0) then
    redis.call('SET', KEYS[2], identity .. ' ' .. replicas)
  end
end
local before = redis.call('GET', KEYS[1]) or ''
if string.find(' ' .. ARGV[1] .. ' ', ' ' .. identity .. ' ', 1, true) then
  redis.call('SET', KEYS[1], ARGV[2])
end
return {identity, before}
