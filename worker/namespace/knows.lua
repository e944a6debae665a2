-- Tells whether the server knows expiries of a hash's fields. (fields.lua stands before it.)
-- KEYS: 1 a key that does not exist
-- ARGV: none
-- Returns 1 or 0
return knows(KEYS[1]) and 1 or 0
