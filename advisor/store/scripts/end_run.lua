-- Notes when a run's job ended, unless the run was deleted, or a different job has reported to it since.
--
-- KEYS: summary
-- ARGV: session of the job, time in ms
-- Returns {}.
--
-- A job that resumes has a new session, so an end that arrives late does not end the new job. Nothing
-- undoes an end: it counts while its session is the latest one.

if redis.call('HGET', KEYS[1], 'session') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'ended_session', ARGV[1], 'ended', ARGV[2])
end
return {}
