-- Stores a token's record, or takes it away.
-- KEYS: tokens, and those of write.lua
-- ARGV: token identifier, record (empty: take it away), name and role for the audit, and those of
-- write.lua
-- Returns {1}, or {0} if the token to take away is not there, or the one to store is.
local before = remembered()
if before then
  return before
end
local wrong = misfit(KEYS[1], 'hash')
if wrong then
  return wrong
end
local known = redis.call('HGET', KEYS[1], ARGV[1])
local is_new = ARGV[2] ~= ''
if (known and true or false) == is_new then
  return {0}
end
local failed = audited(is_new and 'create token' or 'revoke token', 'tokens/' .. ARGV[1], ARGV[3])
if failed then
  return failed
end
if is_new then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
else
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return answered({1})
