-- Stands in front of every script that writes: what a write must do apart from its own business.
-- The last two KEYS: audit stream, memory of the request.
-- The last five ARGV: actor, peer, time in ms, request identifier (empty: none), fingerprint of the
-- request.
local AUDIT, MEMORY = KEYS[#KEYS - 1], KEYS[#KEYS]
local REQUEST, FINGERPRINT = ARGV[#ARGV - 1], ARGV[#ARGV]
local MEMORY_S = 86400

-- Returns what the same request was answered before, an error reply if the identifier was another
-- request's, or nil.
local function remembered()
  if REQUEST == '' then
    return nil
  end
  local known = redis.call('HMGET', MEMORY, 'fingerprint', 'answer')
  if not known[1] then
    return nil
  end
  if known[1] ~= FINGERPRINT then
    return redis.error_reply('REQUESTREUSED')
  end
  redis.call('EXPIRE', MEMORY, MEMORY_S)  -- a write, so that waiting for replicas covers the first
  return cjson.decode(known[2])
end

-- Keeps the answer for a retry of the same request.
local function answered(answer)
  if REQUEST ~= '' then
    redis.call('HSET', MEMORY, 'fingerprint', FINGERPRINT, 'answer', cjson.encode(answer))
    redis.call('EXPIRE', MEMORY, MEMORY_S)
  end
  return answer
end

-- Returns an error reply if a key holds another kind of value than it must, or nil. Comes before the
-- audit record, for what Lua has written stays when a later command fails. Arguments: key, kind, ...
local function misfit(...)
  local wanted = {...}
  wanted[#wanted + 1], wanted[#wanted + 2] = MEMORY, 'hash'
  for i = 1, #wanted, 2 do
    local kind = redis.call('TYPE', wanted[i]).ok
    if kind ~= 'none' and kind ~= wanted[i + 1] then
      return redis.error_reply('MISFIT ' .. wanted[i] .. ' holds a ' .. kind .. ', not a '
        .. wanted[i + 1])
    end
  end
  return nil
end

-- Returns the aliases that name a version, by name.
local function naming(aliases_key, version)
  local found = {}
  local named = redis.call('HGETALL', aliases_key)
  for i = 1, #named, 2 do
    if tonumber(named[i + 1]) == tonumber(version) then
      found[#found + 1] = named[i]
    end
  end
  table.sort(found)
  return found
end

-- Writes down who does what; comes before the write itself. Returns an error reply if it cannot.
local function audited(action, name, detail)
  local result = redis.pcall('XADD', AUDIT, '*', 'actor', ARGV[#ARGV - 4], 'peer', ARGV[#ARGV - 3],
    'time', ARGV[#ARGV - 2], 'request', REQUEST, 'action', action, 'name', name, 'detail', detail)
  if type(result) == 'table' and result.err then
    local is_replica = string.find(result.err, '^%-?READONLY')  -- the client must look elsewhere
    return redis.error_reply(is_replica and result.err or 'AUDITFAILED ' .. result.err)
  end
  return nil
end
