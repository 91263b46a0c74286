-- Deletes all versions of a profile that has no aliases. Their numbers are never reused, because
-- `last` stays.
-- KEYS: profiles, labels, index, aliases, contents of the versions ..., and those of write.lua
-- ARGV: profile id, number of versions, version, digest, version, digest, ... (in the order of the
-- contents), and those of write.lua
-- Returns {DeleteAllOutcome}, followed by all aliases if there are some (IN_USE). CHANGED: the stored
-- versions are not the given ones.

local answer = stored_answer()
if answer then
  return answer
end
local count = tonumber(ARGV[2])
local wrong_type = check_types(KEYS[1], 'zset', KEYS[2], 'zset', KEYS[3], 'hash', KEYS[4], 'hash')
for i = 1, count do -- not at once: there may be more than a call takes arguments
  wrong_type = wrong_type or check_types(KEYS[4 + i], 'hash')
end
if wrong_type then
  return wrong_type
end
local stored = 0
for _, field in ipairs(redis.call('HKEYS', KEYS[3])) do
  if string.match(field, '^v:%d+$') then
    stored = stored + 1
  end
end
if stored ~= count then
  return {DeleteAllOutcome.CHANGED}
end
if count == 0 then
  return {DeleteAllOutcome.NOT_FOUND}
end
local versions = {}
for i = 1, count do
  local version, digest = ARGV[1 + 2 * i], ARGV[2 + 2 * i]
  if redis.call('HGET', KEYS[3], 'v:' .. version) ~= digest then
    return {DeleteAllOutcome.CHANGED}
  end
  versions[i] = version
end
local aliases = redis.call('HKEYS', KEYS[4])
if #aliases > 0 then
  table.sort(aliases)
  return extend({DeleteAllOutcome.IN_USE}, aliases)
end
local audit_error = write_audit('delete profile', 'profiles/' .. ARGV[1],
  'versions ' .. table.concat(versions, ', '))
if audit_error then
  return audit_error
end
remove_labels(KEYS[2], KEYS[3], redis.call('HGET', KEYS[3], 'latest'), ARGV[1])
for i = 1, count do
  local version, digest = ARGV[1 + 2 * i], ARGV[2 + 2 * i]
  redis.call('DEL', KEYS[4 + i])
  redis.call('HDEL', KEYS[3], 'v:' .. version, 't:' .. version, 'l:' .. version, 'd:' .. digest)
end
redis.call('HDEL', KEYS[3], 'latest')
redis.call('ZREM', KEYS[1], ARGV[1])
return store_answer({DeleteAllOutcome.DELETED})
