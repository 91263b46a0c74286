-- Deletes a run, its history and its metrics.
-- KEYS: runs, summary, events, metrics, metric names, and those of write.lua
-- ARGV: run id, and those of write.lua
-- Returns {DeleteRunOutcome}.

local answer = stored_answer()
if answer then
  return answer
end
local wrong_type = check_types(KEYS[1], 'zset', KEYS[2], 'hash', KEYS[3], 'stream', KEYS[4], 'stream',
  KEYS[5], 'hash')
if wrong_type then
  return wrong_type
end
local measurements = redis.call('HGET', KEYS[2], 'measurements')
if not measurements then
  return {DeleteRunOutcome.NOT_FOUND}
end
local audit_error = write_audit('delete run', 'runs/' .. ARGV[1],
  measurements .. ' measurements')
if audit_error then
  return audit_error
end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
redis.call('ZREM', KEYS[1], ARGV[1])
return store_answer({DeleteRunOutcome.DELETED})
