-- Maintains the index of labels, which holds the labels of each profile's latest version.
-- Its members are `key NUL value NUL profile`, all with score 0, so the profiles with one label are a
-- range in the order of their names.

-- Returns the labels of a version as `key NUL value`; damaged ones count as none.
local function labels_of(index_key, version)
  local stored = version and redis.call('HGET', index_key, 'l:' .. version)
  local is_valid, decoded = pcall(cjson.decode, stored or '[]')
  return is_valid and type(decoded) == 'table' and decoded or {}
end

local function remove_labels(labels_key, index_key, version, profile)
  for _, label in ipairs(labels_of(index_key, version)) do
    redis.call('ZREM', labels_key, tostring(label) .. '\0' .. profile)
  end
end

local function add_labels(labels_key, index_key, version, profile)
  for _, label in ipairs(labels_of(index_key, version)) do
    redis.call('ZADD', labels_key, 0, tostring(label) .. '\0' .. profile)
  end
end

-- Returns the highest stored version, or 0.
local function highest_version(index_key)
  local found = 0
  for _, field in ipairs(redis.call('HKEYS', index_key)) do
    found = math.max(found, tonumber(string.match(field, '^v:(%d+)$') or 0))
  end
  return found
end
