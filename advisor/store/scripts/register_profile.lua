-- Stores a version unless the same content is stored already. Content that was lost or damaged is
-- put back (the digest proves that it is the same), and so are its labels.
-- KEYS: profiles, labels, index, aliases, content, and those of write.lua
-- ARGV: digest, header, arrays, summary, time in ms, profile identifier, labels (JSON list of
-- `key NUL value`), and those of write.lua
-- Returns {version, time in ms, 1 if this request made it, aliases that name it ...}.
local before = remembered()
if before then
  return before
end
local wrong = misfit(KEYS[1], 'zset', KEYS[2], 'zset', KEYS[3], 'hash', KEYS[4], 'hash', KEYS[5],
  'hash')
if wrong then
  return wrong
end
local known = redis.call('HGET', KEYS[3], 'd:' .. ARGV[1])
local latest = tonumber(redis.call('HGET', KEYS[3], 'latest')) or 0
local version = known
if not known then
  -- A number is never given twice, whatever was lost: above all that is stored, and all that aliases
  -- name.
  version = tonumber(redis.call('HGET', KEYS[3], 'last')) or 0
  if version < latest or redis.call('HEXISTS', KEYS[3], 'v:' .. (version + 1)) == 1 or version == 0 then
    version = math.max(version, latest, highest(KEYS[3]))
  end
  for _, named in ipairs(redis.call('HVALS', KEYS[4])) do
    version = math.max(version, tonumber(named) or 0)
  end
  version = version + 1
end
local name = 'profiles/' .. ARGV[6] .. '@' .. version
local stored = redis.call('HMGET', KEYS[5], 'header', 'arrays', 'summary')
local whole = known and stored[1] == ARGV[2] and stored[2] == ARGV[3] and stored[3] == ARGV[4]
if not whole then
  local failed = audited(known and 'restore' or 'register', name, ARGV[1])
  if failed then
    return failed
  end
  redis.call('HSET', KEYS[5], 'header', ARGV[2], 'arrays', ARGV[3], 'summary', ARGV[4])
end
if not known then
  unlabel(KEYS[2], KEYS[3], redis.call('HGET', KEYS[3], 'latest'), ARGV[6])
  redis.call('HSET', KEYS[3], 'last', version, 'latest', version, 'd:' .. ARGV[1], version)
elseif redis.call('HEXISTS', KEYS[3], 'v:' .. latest) == 0 then
  redis.call('HSET', KEYS[3], 'latest', math.max(highest(KEYS[3]), tonumber(version)))
end
redis.call('HSET', KEYS[3], 'v:' .. version, ARGV[1])
redis.call('ZADD', KEYS[1], 0, ARGV[6])
redis.call('HSETNX', KEYS[3], 't:' .. version, ARGV[5])
redis.call('HSET', KEYS[3], 'l:' .. version, ARGV[7])
if tonumber(redis.call('HGET', KEYS[3], 'latest')) == tonumber(version) then
  label(KEYS[2], KEYS[3], version, ARGV[6])
end
local time = tonumber(redis.call('HGET', KEYS[3], 't:' .. version)) or 0
local answer = {tonumber(version), time, known and 0 or 1}
for _, alias in ipairs(naming(KEYS[4], version)) do
  answer[#answer + 1] = alias
end
return answered(answer)
