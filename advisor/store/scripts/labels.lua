-- Keeps the index of labels: of each profile those of its latest version.
-- Members are `key NUL value NUL profile`, all with score 0, so that a pair's profiles are a stretch
-- in the order of their names.
local function unlabel(labels_key, index_key, version, profile)
  local pairs_of = version and redis.call('HGET', index_key, 'l:' .. version)
  for _, pair in ipairs(pairs_of and cjson.decode(pairs_of) or {}) do
    redis.call('ZREM', labels_key, pair .. '\0' .. profile)
  end
end

local function label(labels_key, index_key, version, profile)
  local pairs_of = redis.call('HGET', index_key, 'l:' .. version)
  for _, pair in ipairs(pairs_of and cjson.decode(pairs_of) or {}) do
    redis.call('ZADD', labels_key, 0, pair .. '\0' .. profile)
  end
end
