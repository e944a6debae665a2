-- Deletes one key of a namespace on a Cluster.
-- KEYS: 1 the key, 2 the fence of its slot, or none
-- ARGV: 1 the token that the fence must hold (unused without a fence)
-- Returns {unused, deleted}; deleted is -1, and nothing was deleted, when the fence holds
-- another token
if KEYS[2] and redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return { '0', -1 }
end
return { '0', redis.call('UNLINK', KEYS[1]) }
