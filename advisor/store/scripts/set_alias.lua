-- Moves an alias to a version, or deletes it, if it is in the state that the caller expects.
-- KEYS: index, aliases, and those of write.lua
-- ARGV: alias, 1 to delete it, suffix (a version, an alias, or empty for the latest), expected version
-- (0: none, empty: any), expected number of moves (empty: any), profile id, and those of write.lua
-- An alias counts its moves, so moving it away and back does not pass for leaving it alone.
-- Returns, starting with an AliasOutcome:
-- {MOVED, previous version, moves, version, digest, time in ms, aliases that name the version ...}
-- {DELETED, previous version, moves}, {CONFLICT, current version, moves},
-- {NO_VERSION}, {NO_PROFILE}, or {NO_ALIAS} if the alias to delete does not exist.
local answer = stored_answer()
if answer then
  return answer
end
local wrong_type = check_types(KEYS[1], 'hash', KEYS[2], 'hash')
if wrong_type then
  return wrong_type
end
local alias = ARGV[1]
if redis.call('HEXISTS', KEYS[1], 'latest') == 0 then
  return {AliasOutcome.NO_PROFILE}
end
local stored = redis.call('HGET', KEYS[2], alias)
local current = tonumber(stored) or 0
local moves = tonumber(redis.call('HGET', KEYS[1], 'g:' .. alias)) or 0
if (ARGV[5] ~= '' and tonumber(ARGV[5]) ~= moves)
  or (ARGV[4] ~= '' and tonumber(ARGV[4]) ~= current) then
  return {AliasOutcome.CONFLICT, current, moves}
end
local name = 'profiles/' .. ARGV[6] .. '@' .. alias
if ARGV[2] == '1' then
  if not stored then
    return {AliasOutcome.NO_ALIAS}
  end
  local audit_error = write_audit('delete alias', name, current .. ' -> ')
  if audit_error then
    return audit_error
  end
  redis.call('HSET', KEYS[1], 'g:' .. alias, moves + 1)
  redis.call('HDEL', KEYS[2], alias)
  return store_answer({AliasOutcome.DELETED, current, moves + 1})
end
local version = named_version(KEYS[1], KEYS[2], ARGV[3])
local digest = version and redis.call('HGET', KEYS[1], 'v:' .. version)
if not digest then
  return {AliasOutcome.NO_VERSION}
end
-- Without an etag, nothing is written if the alias names the version already.
if ARGV[5] ~= '' or tonumber(version) ~= current then
  local audit_error = write_audit('set alias', name, current .. ' -> ' .. version)
  if audit_error then
    return audit_error
  end
  moves = moves + 1
  redis.call('HSET', KEYS[1], 'g:' .. alias, moves)
  redis.call('HSET', KEYS[2], alias, version)
end
local time = tonumber(redis.call('HGET', KEYS[1], 't:' .. version)) or 0
return store_answer(extend({AliasOutcome.MOVED, current, moves, tonumber(version), digest, time},
  aliases_of(KEYS[2], version)))
