-- Reads the expiries of some fields of a hash. (fields.lua stands before it.)
-- KEYS: 1 the hash
-- ARGV: the fields
-- Returns the expiries in Unix ms, -1 for never, -2 for a field that is gone; none at all when
-- no field of the hash can have one
return expiries(KEYS[1], ARGV) or {}
