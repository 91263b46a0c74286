-- Shared part of every script that writes: idempotent retries, type checks, and the audit record.
-- The last two KEYS: audit stream, hash of the request's answer.
-- The last five ARGV: actor, peer, time in ms, request id (empty: none), fingerprint of the request.
local AUDIT_KEY, ANSWER_KEY = KEYS[#KEYS - 1], KEYS[#KEYS]
local REQUEST_ID, FINGERPRINT = ARGV[#ARGV - 1], ARGV[#ARGV]
local ANSWER_LIFETIME_S = 86400

-- Returns the stored answer if this request was executed before, an error reply if its id belongs to
-- a different request, or nil.
local function stored_answer()
  if REQUEST_ID == '' then
    return nil
  end
  local stored = redis.call('HMGET', ANSWER_KEY, 'fingerprint', 'answer')
  if not stored[1] then
    return nil
  end
  if stored[1] ~= FINGERPRINT then
    return redis.error_reply(ScriptError.REQUEST_REUSED)
  end
  -- A write, so that waiting for replicas covers the original write too.
  redis.call('EXPIRE', ANSWER_KEY, ANSWER_LIFETIME_S)
  return cjson.decode(stored[2])
end

-- Stores the answer for retries of the same request, and returns it.
local function store_answer(answer)
  if REQUEST_ID ~= '' then
    redis.call('HSET', ANSWER_KEY, 'fingerprint', FINGERPRINT, 'answer', cjson.encode(answer))
    redis.call('EXPIRE', ANSWER_KEY, ANSWER_LIFETIME_S)
  end
  return answer
end

-- Returns an error reply if a key holds a value of the wrong type, or nil. Arguments: key, type, ...
-- Must be called before the audit record is written: when a later command fails, Redis does not undo
-- what the script has written so far.
local function check_types(...)
  local wanted = {...}
  wanted[#wanted + 1], wanted[#wanted + 2] = ANSWER_KEY, 'hash'
  for i = 1, #wanted, 2 do
    local found = redis.call('TYPE', wanted[i]).ok
    if found ~= 'none' and found ~= wanted[i + 1] then
      return redis.error_reply(ScriptError.WRONG_TYPE .. ' ' .. wanted[i] .. ' holds a ' .. found
        .. ', not a ' .. wanted[i + 1])
    end
  end
  return nil
end

-- Returns the aliases that name a version, sorted.
local function aliases_of(aliases_key, version)
  local found = {}
  local stored = redis.call('HGETALL', aliases_key)
  for i = 1, #stored, 2 do
    if tonumber(stored[i + 1]) == tonumber(version) then
      found[#found + 1] = stored[i]
    end
  end
  table.sort(found)
  return found
end

-- Appends the list's items to the reply, and returns the reply.
local function extend(reply, items)
  for _, item in ipairs(items) do
    reply[#reply + 1] = item
  end
  return reply
end

-- Writes the audit record; must be called before the write itself. Returns an error reply or nil.
local function write_audit(action, name, detail)
  local result = redis.pcall('XADD', AUDIT_KEY, '*', 'actor', ARGV[#ARGV - 4],
    'peer', ARGV[#ARGV - 3], 'time', ARGV[#ARGV - 2], 'request', REQUEST_ID,
    'action', action, 'name', name, 'detail', detail)
  if type(result) == 'table' and result.err then
    local is_replica = string.find(result.err, '^%-?READONLY')  -- makes the client find the primary
    return redis.error_reply(is_replica and result.err
      or ScriptError.AUDIT_FAILED .. ' ' .. result.err)
  end
  return nil
end
