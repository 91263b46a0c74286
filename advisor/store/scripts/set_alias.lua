-- Points an alias at a version, if it names the expected one now.
-- KEYS: index, aliases    ARGV: alias, version, expected version (0: none, empty: any)
-- An alias that names the version already counts as moved, so that a retry does not lose to itself.
-- Returns {1, version before} when moved, {0, version now} on a lost race, {-1, 0} if the version
-- is not there.
if redis.call('HEXISTS', KEYS[1], 'v:' .. ARGV[2]) == 0 then
  return {-1, 0}
end
local now = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or 0)
if ARGV[3] ~= '' and tonumber(ARGV[3]) ~= now and tonumber(ARGV[2]) ~= now then
  return {0, now}
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return {1, now}
