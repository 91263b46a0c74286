-- Removes a version that no alias names. Its number is never given again: `last` stays.
-- KEYS: profiles, index, aliases, content, and those of write.lua
-- ARGV: version, digest, profile identifier, and those of write.lua
-- Returns the aliases that name the version (nothing was removed), else {}.
local before = remembered()
if before then
  return before
end
local naming = {}
local aliases = redis.call('HGETALL', KEYS[3])
for i = 1, #aliases, 2 do
  if aliases[i + 1] == ARGV[1] then
    naming[#naming + 1] = aliases[i]
  end
end
if #naming > 0 then
  return naming
end
if redis.call('HGET', KEYS[2], 'v:' .. ARGV[1]) ~= ARGV[2] then
  return {}
end
local failed = audited('delete', 'profiles/' .. ARGV[3] .. '@' .. ARGV[1], ARGV[2])
if failed then
  return failed
end
redis.call('DEL', KEYS[4])
redis.call('HDEL', KEYS[2], 'v:' .. ARGV[1], 't:' .. ARGV[1], 'd:' .. ARGV[2])
if redis.call('HGET', KEYS[2], 'latest') == ARGV[1] then
  local version = tonumber(ARGV[1]) - 1
  while version > 0 and redis.call('HEXISTS', KEYS[2], 'v:' .. version) == 0 do
    version = version - 1
  end
  if version > 0 then
    redis.call('HSET', KEYS[2], 'latest', version)
  else
    redis.call('HDEL', KEYS[2], 'latest')
    redis.call('ZREM', KEYS[1], ARGV[3])
  end
end
return answered({})
