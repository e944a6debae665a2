-- Sets fields of a hash, each with an expiry of its own, in one step.
-- KEYS: 1 the key
-- ARGV: 1 '1' to replace what is there, '0' to add to it, 2 expiry of the key in Unix ms, 0 to
--       leave it, 3… field, value, expiry in Unix ms (0 for never), …
-- Returns 1
if ARGV[1] == '1' then redis.call('DEL', KEYS[1]) end
local flat = {}
for i = 3, #ARGV, 3 do
  flat[#flat + 1] = ARGV[i]
  flat[#flat + 1] = ARGV[i + 1]
end
redis.call('HSET', KEYS[1], unpack(flat))
for i = 3, #ARGV, 3 do
  if ARGV[i + 2] ~= '0' then -- one that is past removes the field, and the last field the key
    redis.call('HPEXPIREAT', KEYS[1], ARGV[i + 2], 'FIELDS', 1, ARGV[i])
  end
end
if ARGV[2] ~= '0' then
  redis.call('PEXPIREAT', KEYS[1], ARGV[2])
end
return 1
