-- Stores a version unless the same content is stored already.
-- KEYS: profiles, labels, index, content, and those of write.lua
-- ARGV: digest, header, arrays, time in ms, profile identifier, labels (JSON list of
-- `key NUL value`), and those of write.lua
-- Returns {version, time in ms, 1 if this request made it}.
local before = remembered()
if before then
  return before
end
local known = redis.call('HGET', KEYS[3], 'd:' .. ARGV[1])
if known then
  return answered({tonumber(known), tonumber(redis.call('HGET', KEYS[3], 't:' .. known)), 0})
end
local version = tonumber(redis.call('HGET', KEYS[3], 'last') or 0) + 1
local failed = audited('register', 'profiles/' .. ARGV[5] .. '@' .. version, ARGV[1])
if failed then
  return failed
end
unlabel(KEYS[2], KEYS[3], redis.call('HGET', KEYS[3], 'latest'), ARGV[5])
redis.call('HSET', KEYS[4], 'header', ARGV[2], 'arrays', ARGV[3])
redis.call('HSET', KEYS[3], 'last', version, 'latest', version, 'v:' .. version, ARGV[1],
  'd:' .. ARGV[1], version, 't:' .. version, ARGV[4], 'l:' .. version, ARGV[6])
label(KEYS[2], KEYS[3], version, ARGV[5])
redis.call('ZADD', KEYS[1], 0, ARGV[5])
return answered({version, tonumber(ARGV[4]), 1})
