-- Keeps the index of labels: of each profile those of its latest version.
-- Members are `key NUL value NUL profile`, all with score 0, so that a pair's profiles are a stretch
-- in the order of their names.
-- The pairs of a version; what is damaged counts as none.
local function pairs_of(index_key, version)
  local stored = version and redis.call('HGET', index_key, 'l:' .. version)
  local fine, decoded = pcall(cjson.decode, stored or '[]')
  return fine and type(decoded) == 'table' and decoded or {}
end

local function unlabel(labels_key, index_key, version, profile)
  for _, pair in ipairs(pairs_of(index_key, version)) do
    redis.call('ZREM', labels_key, tostring(pair) .. '\0' .. profile)
  end
end

local function label(labels_key, index_key, version, profile)
  for _, pair in ipairs(pairs_of(index_key, version)) do
    redis.call('ZADD', labels_key, 0, tostring(pair) .. '\0' .. profile)
  end
end

-- Returns the highest version that is stored, or 0.
local function highest(index_key)
  local found = 0
  for _, field in ipairs(redis.call('HKEYS', index_key)) do
    found = math.max(found, tonumber(string.match(field, '^v:(%d+)$') or 0))
  end
  return found
end
