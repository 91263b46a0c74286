-- Finds the version that a suffix names.
-- KEYS: index, aliases    ARGV: suffix: a version, an alias, or empty for the latest
-- Returns {} if there is no such profile, {0} if it has no such version, else
-- {version, digest, time in ms, alias, version, alias, version, ...}.
if redis.call('HEXISTS', KEYS[1], 'latest') == 0 then
  return {}
end
local version = ARGV[1]
if version == '' then
  version = redis.call('HGET', KEYS[1], 'latest')
elseif not string.match(version, '^%d+$') then
  version = redis.call('HGET', KEYS[2], version)
end
local digest = version and redis.call('HGET', KEYS[1], 'v:' .. version)
if not digest then
  return {0}
end
local found = {tonumber(version), digest, tonumber(redis.call('HGET', KEYS[1], 't:' .. version))}
for _, item in ipairs(redis.call('HGETALL', KEYS[2])) do
  found[#found + 1] = item
end
return found
