-- Points an alias at a version, or takes it away, if it is what the caller read.
-- KEYS: index, aliases, and those of write.lua
-- ARGV: alias, 1 to take it away, suffix (a version, an alias, empty: the latest), expected version
-- (0: none, empty: any), expected generation (empty: any), profile identifier, and those of
-- write.lua
-- The generation counts an alias's moves, so that one moved away and back is not taken for unmoved.
-- Returns {1, version before, generation, version, digest, time in ms, aliases that name it ...} when
-- moved, {0, version now, generation} on a lost race, {-1} if there is no such version, {-2} if there
-- is no such profile, {-3} if the alias to take away is not there.
local before = remembered()
if before then
  return before
end
local wrong = misfit(KEYS[1], 'hash', KEYS[2], 'hash')
if wrong then
  return wrong
end
local alias, version = ARGV[1], ARGV[3]
if redis.call('HEXISTS', KEYS[1], 'latest') == 0 then
  return {-2}
end
local stored = redis.call('HGET', KEYS[2], alias)
local now = tonumber(stored) or 0
local generation = tonumber(redis.call('HGET', KEYS[1], 'g:' .. alias)) or 0
if (ARGV[5] ~= '' and tonumber(ARGV[5]) ~= generation)
  or (ARGV[4] ~= '' and tonumber(ARGV[4]) ~= now) then
  return {0, now, generation}
end
if ARGV[2] == '1' then
  if not stored then
    return {-3}
  end
  local failed = audited('delete alias', 'profiles/' .. ARGV[6] .. '@' .. alias, now .. ' -> ')
  if failed then
    return failed
  end
  redis.call('HSET', KEYS[1], 'g:' .. alias, generation + 1)
  redis.call('HDEL', KEYS[2], alias)
  return answered({1, now, generation + 1})
end
if version == '' then
  version = redis.call('HGET', KEYS[1], 'latest')
elseif not string.match(version, '^%d+$') then
  version = redis.call('HGET', KEYS[2], version)
end
local digest = version and redis.call('HGET', KEYS[1], 'v:' .. version)
if not digest then
  return {-1}
end
-- Without an etag, an alias that names the version already has nothing to do.
if ARGV[5] ~= '' or tonumber(version) ~= now then
  local failed = audited('set alias', 'profiles/' .. ARGV[6] .. '@' .. alias,
    now .. ' -> ' .. version)
  if failed then
    return failed
  end
  generation = generation + 1
  redis.call('HSET', KEYS[1], 'g:' .. alias, generation)
  redis.call('HSET', KEYS[2], alias, version)
end
local time = tonumber(redis.call('HGET', KEYS[1], 't:' .. version)) or 0
local answer = {1, now, generation, tonumber(version), digest, time}
for _, other in ipairs(naming(KEYS[2], version)) do
  answer[#answer + 1] = other
end
return answered(answer)
