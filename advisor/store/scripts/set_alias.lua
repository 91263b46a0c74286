-- Points an alias at a version, or takes it away, if it is what the caller read.
-- KEYS: index, aliases, and those of write.lua
-- ARGV: alias, version (empty: take it away), expected version (0: none, empty: any), expected
-- generation (empty: any), profile identifier, and those of write.lua
-- The generation counts an alias's moves, so that one moved away and back is not taken for unmoved.
-- With an expected version alone, an alias that names the version already counts as moved, so that
-- a retry without an identifier does not lose to itself.
-- Returns {1, version before, generation} when moved, {0, version now, generation} on a lost race,
-- {-1, 0, 0} if the version is not there.
local before = remembered()
if before then
  return before
end
local alias, version = ARGV[1], ARGV[2]
if version ~= '' and redis.call('HEXISTS', KEYS[1], 'v:' .. version) == 0 then
  return {-1, 0, 0}
end
local now = tonumber(redis.call('HGET', KEYS[2], alias) or 0)
local generation = tonumber(redis.call('HGET', KEYS[1], 'g:' .. alias) or 0)
if ARGV[4] ~= '' and tonumber(ARGV[4]) ~= generation then
  return {0, now, generation}
end
if ARGV[3] ~= '' and tonumber(ARGV[3]) ~= now and tonumber(version) ~= now then
  return {0, now, generation}
end
if (version == '' and now == 0) or (ARGV[4] == '' and tonumber(version) == now) then
  return answered({1, now, generation})
end
local action = version == '' and 'delete alias' or 'set alias'
local failed = audited(action, 'profiles/' .. ARGV[5] .. '@' .. alias, now .. ' -> ' .. version)
if failed then
  return failed
end
redis.call('HSET', KEYS[1], 'g:' .. alias, generation + 1)
if version == '' then
  redis.call('HDEL', KEYS[2], alias)
else
  redis.call('HSET', KEYS[2], alias, version)
end
return answered({1, now, generation + 1})
