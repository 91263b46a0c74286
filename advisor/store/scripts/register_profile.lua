-- Stores a version unless the same content is stored already.
-- KEYS: profiles, index, content    ARGV: digest, header, arrays, time in ms, profile identifier
-- Returns {version, time in ms, 1 if this call made it}.
local known = redis.call('HGET', KEYS[2], 'd:' .. ARGV[1])
if known then
  return {tonumber(known), tonumber(redis.call('HGET', KEYS[2], 't:' .. known)), 0}
end
local version = redis.call('HINCRBY', KEYS[2], 'last', 1)
redis.call('HSET', KEYS[3], 'header', ARGV[2], 'arrays', ARGV[3])
redis.call('HSET', KEYS[2], 'latest', version, 'v:' .. version, ARGV[1],
  'd:' .. ARGV[1], version, 't:' .. version, ARGV[4])
redis.call('ZADD', KEYS[1], 0, ARGV[5])
return {version, tonumber(ARGV[4]), 1}
