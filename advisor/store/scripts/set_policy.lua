-- Stores a version of a policy unless the latest one has the same rules.
-- KEYS: policies, policy, and those of write.lua
-- ARGV: policy identifier, rules, expected latest version (0: none, empty: any), time in ms, and
-- those of write.lua
-- Returns {version, time in ms, 1 if this request made it}, or {-1, version now, 0} on a lost race.
local before = remembered()
if before then
  return before
end
local wrong = misfit(KEYS[1], 'zset', KEYS[2], 'hash')
if wrong then
  return wrong
end
local latest = tonumber(redis.call('HGET', KEYS[2], 'latest')) or 0
if latest == 0 then  -- none yet, or lost: no version is given twice
  for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
    latest = math.max(latest, tonumber(string.match(field, '^v:(%d+)$') or 0))
  end
end
if ARGV[3] ~= '' and tonumber(ARGV[3]) ~= latest then
  return {-1, latest, 0}
end
if latest > 0 and redis.call('HGET', KEYS[2], 'v:' .. latest) == ARGV[2] then
  return answered({latest, tonumber(redis.call('HGET', KEYS[2], 't:' .. latest)) or 0, 0})
end
local version = latest + 1
local failed = audited('set policy', 'policies/' .. ARGV[1] .. '@' .. version, ARGV[2])
if failed then
  return failed
end
redis.call('HSET', KEYS[2], 'latest', version, 'v:' .. version, ARGV[2], 't:' .. version, ARGV[4])
redis.call('ZADD', KEYS[1], 0, ARGV[1])
return answered({version, tonumber(ARGV[4]), 1})
