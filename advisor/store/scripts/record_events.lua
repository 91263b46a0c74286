-- Appends events to a run's capped history and updates the run's summary.
-- KEYS: runs, summary, events
-- ARGV: run id, opening, number of events lost before these, maximum number of events kept, lifetime
-- in s, time of the first event in ms, time of the last event in ms, step of the last event, then the
-- events in order
-- The history is written first: if that fails, the summary does not count events that are not there.
for i = 9, #ARGV do
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[4], '*', 'event', ARGV[i])
end
local created = redis.call('HGET', KEYS[2], 'created')
if not created then
  created = ARGV[6]
  redis.call('ZADD', KEYS[1], created, ARGV[1])
  redis.call('HSET', KEYS[2], 'created', created)
end
if redis.call('HGET', KEYS[2], 'opening') ~= ARGV[2] then
  redis.call('HSET', KEYS[2], 'opening', ARGV[2])
end
redis.call('HSET', KEYS[2], 'updated', ARGV[7], 'step', ARGV[8])
redis.call('HINCRBY', KEYS[2], 'measurements', #ARGV - 8)
redis.call('HINCRBY', KEYS[2], 'lost', ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[5])
redis.call('EXPIRE', KEYS[3], ARGV[5])
