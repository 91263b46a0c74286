-- Registers a profile: stores a new version unless the same content is stored already. Content or
-- labels that were lost or damaged are restored; the digest proves that the content is the same.
-- KEYS: profiles, labels, index, aliases, content, and those of write.lua
-- ARGV: digest, header, arrays, summary, time in ms, profile id, labels (JSON list of
-- `key NUL value`), and those of write.lua
-- Returns {RegisterOutcome, version, time in ms, aliases that name it ...}.
local answer = stored_answer()
if answer then
  return answer
end
local wrong_type = check_types(KEYS[1], 'zset', KEYS[2], 'zset', KEYS[3], 'hash', KEYS[4], 'hash',
  KEYS[5], 'hash')
if wrong_type then
  return wrong_type
end
local known = redis.call('HGET', KEYS[3], 'd:' .. ARGV[1])
local latest = tonumber(redis.call('HGET', KEYS[3], 'latest')) or 0
local version = known
if not known then
  -- A version number is never reused, even if fields were lost: the new one is above all stored
  -- versions and above all versions that aliases name.
  version = tonumber(redis.call('HGET', KEYS[3], 'last')) or 0
  if version < latest or redis.call('HEXISTS', KEYS[3], 'v:' .. (version + 1)) == 1 or version == 0 then
    version = math.max(version, latest, highest_version(KEYS[3]))
  end
  for _, named in ipairs(redis.call('HVALS', KEYS[4])) do
    version = math.max(version, tonumber(named) or 0)
  end
  version = version + 1
end
local name = 'profiles/' .. ARGV[6] .. '@' .. version
local stored = redis.call('HMGET', KEYS[5], 'header', 'arrays', 'summary')
local is_intact = known and stored[1] == ARGV[2] and stored[2] == ARGV[3] and stored[3] == ARGV[4]
if not is_intact then
  local audit_error = write_audit(known and 'restore' or 'register', name, ARGV[1])
  if audit_error then
    return audit_error
  end
  redis.call('HSET', KEYS[5], 'header', ARGV[2], 'arrays', ARGV[3], 'summary', ARGV[4])
end
if not known then
  remove_labels(KEYS[2], KEYS[3], redis.call('HGET', KEYS[3], 'latest'), ARGV[6])
  redis.call('HSET', KEYS[3], 'last', version, 'latest', version, 'd:' .. ARGV[1], version)
elseif redis.call('HEXISTS', KEYS[3], 'v:' .. latest) == 0 then
  redis.call('HSET', KEYS[3], 'latest', math.max(highest_version(KEYS[3]), tonumber(version)))
end
redis.call('HSET', KEYS[3], 'v:' .. version, ARGV[1])
redis.call('ZADD', KEYS[1], 0, ARGV[6])
redis.call('HSETNX', KEYS[3], 't:' .. version, ARGV[5])
redis.call('HSET', KEYS[3], 'l:' .. version, ARGV[7])
if tonumber(redis.call('HGET', KEYS[3], 'latest')) == tonumber(version) then
  add_labels(KEYS[2], KEYS[3], version, ARGV[6])
end
local time = tonumber(redis.call('HGET', KEYS[3], 't:' .. version)) or 0
local outcome = known and RegisterOutcome.EXISTED or RegisterOutcome.CREATED
return store_answer(extend({outcome, tonumber(version), time}, aliases_of(KEYS[4], version)))
