-- Finds the version that a suffix names, together with the profile's aliases, in one step.
-- KEYS: index, aliases
-- ARGV: suffix (a version, an alias, or empty for the latest), 1 to list all versions
-- Returns {ResolveOutcome}, and if a version was found
-- {FOUND, version, digest, time in ms, {alias, version, moves, ...}, {version, ...}}: all aliases of
-- the profile, and all its versions if asked for, in no particular order.
if redis.call('HEXISTS', KEYS[1], 'latest') == 0 then
  return {ResolveOutcome.NO_PROFILE}
end
local version = named_version(KEYS[1], KEYS[2], ARGV[1])
local digest = version and redis.call('HGET', KEYS[1], 'v:' .. version)
if not digest then
  return {ResolveOutcome.NO_VERSION}
end
local aliases, versions = {}, {}
local stored = redis.call('HGETALL', KEYS[2])
for i = 1, #stored, 2 do
  if tonumber(stored[i + 1]) then
    aliases[#aliases + 1] = stored[i]
    aliases[#aliases + 1] = tonumber(stored[i + 1])
    aliases[#aliases + 1] = tonumber(redis.call('HGET', KEYS[1], 'g:' .. stored[i])) or 0
  end
end
for _, field in ipairs(ARGV[2] == '1' and redis.call('HKEYS', KEYS[1]) or {}) do
  versions[#versions + 1] = tonumber(string.match(field, '^v:(%d+)$'))
end
local time = tonumber(redis.call('HGET', KEYS[1], 't:' .. version)) or 0
return {ResolveOutcome.FOUND, tonumber(version), digest, time, aliases, versions}
