-- Stores or deletes a token's record.
-- KEYS: tokens, and those of write.lua
-- ARGV: token id, record (empty: delete it), role and name for the audit, and those of write.lua
-- Returns {TokenOutcome}: CONFLICT if the token to delete does not exist, or the one to store does.
local answer = stored_answer()
if answer then
  return answer
end
local wrong_type = check_types(KEYS[1], 'hash')
if wrong_type then
  return wrong_type
end
local exists = redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1
local is_new = ARGV[2] ~= ''
if exists == is_new then
  return {TokenOutcome.CONFLICT}
end
local audit_error = write_audit(is_new and 'create token' or 'revoke token', 'tokens/' .. ARGV[1],
  ARGV[3])
if audit_error then
  return audit_error
end
if is_new then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
else
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return store_answer({TokenOutcome.DONE})
