-- Removes a version that no alias names. Its number is never given again: `last` stays.
-- KEYS: profiles, labels, index, aliases, content, and those of write.lua
-- ARGV: version, digest (empty: it was not there), profile identifier, and those of write.lua
-- Returns {1} when removed, {0} if it is not there, {-1, aliases that name it ...} if it is named.
local before = remembered()
if before then
  return before
end
local wrong = misfit(KEYS[1], 'zset', KEYS[2], 'zset', KEYS[3], 'hash', KEYS[4], 'hash', KEYS[5],
  'hash')
if wrong then
  return wrong
end
if ARGV[2] == '' or redis.call('HGET', KEYS[3], 'v:' .. ARGV[1]) ~= ARGV[2] then
  return {0}
end
local answer = {-1}
for _, alias in ipairs(naming(KEYS[4], ARGV[1])) do
  answer[#answer + 1] = alias
end
if #answer > 1 then
  return answer
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
  local latest = highest(KEYS[3])
  if latest > 0 then
    redis.call('HSET', KEYS[3], 'latest', latest)
    label(KEYS[2], KEYS[3], latest, ARGV[3])
  else
    redis.call('HDEL', KEYS[3], 'latest')
    redis.call('ZREM', KEYS[1], ARGV[3])
  end
end
return answered({1})
