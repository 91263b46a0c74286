-- Stores a new version of a policy or a recipe unless the latest version has the same content.
-- KEYS: all of the project (set of ids), this one, and those of write.lua
-- ARGV: id, content, expected latest version (0: none, empty: any), time in ms, the word for one
-- (`policy`) and for several (`policies`), and those of write.lua
-- Returns {VersionOutcome, latest version, time in ms}, or {CONFLICT, latest version}.
local answer = stored_answer()
if answer then
  return answer
end
local wrong_type = check_types(KEYS[1], 'zset', KEYS[2], 'hash')
if wrong_type then
  return wrong_type
end
local latest = tonumber(redis.call('HGET', KEYS[2], 'latest')) or 0
if latest == 0 then  -- no version yet, or the field was lost; a version number is never reused
  for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
    latest = math.max(latest, tonumber(string.match(field, '^v:(%d+)$') or 0))
  end
end
if ARGV[3] ~= '' and tonumber(ARGV[3]) ~= latest then
  return {VersionOutcome.CONFLICT, latest}
end
if latest > 0 and redis.call('HGET', KEYS[2], 'v:' .. latest) == ARGV[2] then
  local time = tonumber(redis.call('HGET', KEYS[2], 't:' .. latest)) or 0
  return store_answer({VersionOutcome.UNCHANGED, latest, time})
end
local version = math.max(latest, tonumber(redis.call('HGET', KEYS[2], 'last')) or 0) + 1
local audit_error = write_audit('set ' .. ARGV[5], ARGV[6] .. '/' .. ARGV[1] .. '@' .. version,
  ARGV[2])
if audit_error then
  return audit_error
end
redis.call('HSET', KEYS[2], 'latest', version, 'v:' .. version, ARGV[2], 't:' .. version, ARGV[4])
redis.call('ZADD', KEYS[1], 0, ARGV[1])
return store_answer({VersionOutcome.CREATED, version, tonumber(ARGV[4])})
