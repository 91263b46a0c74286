-- Deletes a policy or a recipe with all its versions. Their numbers are never reused, because `last`
-- stays.
-- KEYS: all of the project (set of ids), this one, and those of write.lua
-- ARGV: id, expected latest version (empty: any), the word for one (`policy`) and for several
-- (`policies`), and those of write.lua
-- Returns {DeleteVersionsOutcome}, followed by the latest version if it is not the expected one.

local answer = stored_answer()
if answer then
  return answer
end
local wrong_type = check_types(KEYS[1], 'zset', KEYS[2], 'hash')
if wrong_type then
  return wrong_type
end
local latest = tonumber(redis.call('HGET', KEYS[2], 'latest')) or 0
if latest == 0 then
  return {DeleteVersionsOutcome.NOT_FOUND}
end
if ARGV[2] ~= '' and tonumber(ARGV[2]) ~= latest then
  return {DeleteVersionsOutcome.CONFLICT, latest}
end
local audit_error = write_audit('delete ' .. ARGV[3], ARGV[4] .. '/' .. ARGV[1],
  'versions up to ' .. latest)
if audit_error then
  return audit_error
end
local last = math.max(latest, tonumber(redis.call('HGET', KEYS[2], 'last')) or 0)
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'last', last)
redis.call('ZREM', KEYS[1], ARGV[1])
return store_answer({DeleteVersionsOutcome.DELETED})
