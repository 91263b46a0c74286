-- Returns the version that a suffix names: a version, an alias, or the latest one if it is empty. An
-- alias that does not exist names none (false); a version that does not exist is returned all the same.
local function named_version(index_key, aliases_key, suffix)
  if suffix == '' then
    return redis.call('HGET', index_key, 'latest')
  elseif not string.match(suffix, '^%d+$') then
    return redis.call('HGET', aliases_key, suffix)
  end
  return suffix
end

