-- Removes a version that no alias names. Its number is never given again: `last` stays.
-- KEYS: profiles, labels, index, aliases, content, and those of write.lua
-- ARGV: version, digest, profile identifier, and those of write.lua
-- Returns the aliases that name the version (nothing was removed), else {}.
local before = remembered()
if before then
  return before
end
local naming = {}
local aliases = redis.call('HGETALL', KEYS[4])
for i = 1, #aliases, 2 do
  if aliases[i + 1] == ARGV[1] then
    naming[#naming + 1] = aliases[i]
  end
end
if #naming > 0 then
  return naming
end
if redis.call('HGET', KEYS[3], 'v:' .. ARGV[1]) ~= ARGV[2] then
  return {}
end
local failed = audited('delete', 'profiles/' .. ARGV[3] .. '@' .. ARGV[1], ARGV[2])
if failed then
  return failed
end
redis.call('DEL', KEYS[5])
local is_latest = redis.call('HGET', KEYS[3], 'latest') == ARGV[1]
if is_latest then
  unlabel(KEYS[2], KEYS[3], ARGV[1], ARGV[3])
end
redis.call('HDEL', KEYS[3], 'v:' .. ARGV[1], 't:' .. ARGV[1], 'l:' .. ARGV[1], 'd:' .. ARGV[2])
if is_latest then
  local version = tonumber(ARGV[1]) - 1
  while version > 0 and redis.call('HEXISTS', KEYS[3], 'v:' .. version) == 0 do
    version = version - 1
  end
  if version > 0 then
    redis.call('HSET', KEYS[3], 'latest', version)
    label(KEYS[2], KEYS[3], version, ARGV[3])
  else
    redis.call('HDEL', KEYS[3], 'latest')
    redis.call('ZREM', KEYS[1], ARGV[3])
  end
end
return answered({})
