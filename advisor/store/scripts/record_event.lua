-- Appends an event to a run's capped history and keeps the run's summary.
-- KEYS: runs, summary, events
-- ARGV: event, step, time in ms, run identifier, opening, lost before, most events, lifetime in s
local created = redis.call('HGET', KEYS[2], 'created')
if not created then
  created = ARGV[3]
  redis.call('ZADD', KEYS[1], created, ARGV[4])
  redis.call('HSET', KEYS[2], 'created', created)
end
if redis.call('HGET', KEYS[2], 'opening') ~= ARGV[5] then
  redis.call('HSET', KEYS[2], 'opening', ARGV[5])
end
redis.call('HSET', KEYS[2], 'updated', ARGV[3], 'step', ARGV[2])
redis.call('HINCRBY', KEYS[2], 'measurements', 1)
redis.call('HINCRBY', KEYS[2], 'lost', ARGV[6])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[7], '*', 'event', ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[8])
redis.call('EXPIRE', KEYS[3], ARGV[8])
