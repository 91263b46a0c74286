-- Deletes a version that no alias names. Its number is never reused, because `last` stays.
-- KEYS: profiles, labels, index, aliases, content, and those of write.lua
-- ARGV: version, digest (empty: the version was not found), profile id, and those of write.lua
-- Returns {DeleteOutcome}, followed by the aliases that name the version if it is IN_USE.
local answer = stored_answer()
if answer then
  return answer
end
local wrong_type = check_types(KEYS[1], 'zset', KEYS[2], 'zset', KEYS[3], 'hash', KEYS[4], 'hash',
  KEYS[5], 'hash')
if wrong_type then
  return wrong_type
end
if ARGV[2] == '' or redis.call('HGET', KEYS[3], 'v:' .. ARGV[1]) ~= ARGV[2] then
  return {DeleteOutcome.NOT_FOUND}
end
local aliases = aliases_of(KEYS[4], ARGV[1])
if #aliases > 0 then
  return extend({DeleteOutcome.IN_USE}, aliases)
end
local audit_error = write_audit('delete', 'profiles/' .. ARGV[3] .. '@' .. ARGV[1], ARGV[2])
if audit_error then
  return audit_error
end
redis.call('DEL', KEYS[5])
local is_latest = redis.call('HGET', KEYS[3], 'latest') == ARGV[1]
if is_latest then
  remove_labels(KEYS[2], KEYS[3], ARGV[1], ARGV[3])
end
redis.call('HDEL', KEYS[3], 'v:' .. ARGV[1], 't:' .. ARGV[1], 'l:' .. ARGV[1], 'd:' .. ARGV[2])
if is_latest then
  local latest = highest_version(KEYS[3])
  if latest > 0 then
    redis.call('HSET', KEYS[3], 'latest', latest)
    add_labels(KEYS[2], KEYS[3], latest, ARGV[3])
  else
    redis.call('HDEL', KEYS[3], 'latest')
    redis.call('ZREM', KEYS[1], ARGV[3])
  end
end
return store_answer({DeleteOutcome.DELETED})
