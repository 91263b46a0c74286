-- Appends events to a run's capped history and updates the run's summary.
--
-- KEYS: runs, summary, events, metrics, metric names
-- ARGV: run id, opening, number of events lost before these, maximum number of events kept, lifetime
-- in s, time of the first event in ms, time of the last event in ms, step, loss, learning rate and
-- next step of the last event (loss and learning rate may be empty), number of sessions, the sessions
-- of the events in order without repetitions, then the events in order
-- Returns {RecordResult}.
--
-- The history is written first: if that fails, the summary does not count events that are not there.

local MAX_SESSIONS = 8

-- Notes the jobs that report to the run, and returns whether an earlier one has come back: then both
-- are alive. A job that resumes has a new session, and its predecessor never comes back.
local function note_sessions(first, last)
  local current = redis.call('HGET', KEYS[2], 'session') or ''
  local earlier = {}
  for session in string.gmatch(redis.call('HGET', KEYS[2], 'sessions') or '', '[^\n]+') do
    earlier[#earlier + 1] = session
  end
  local returned, changed = false, false
  for i = first, last do
    local session = ARGV[i]
    if session ~= '' and session ~= current then
      for _, known in ipairs(earlier) do
        returned = returned or known == session
      end
      if current ~= '' then
        earlier[#earlier + 1] = current
      end
      current, changed = session, true
    end
  end
  if changed then
    local from = math.max(1, #earlier - MAX_SESSIONS + 1)
    redis.call('HSET', KEYS[2], 'session', current, 'sessions',
      table.concat(earlier, '\n', from, #earlier))
  end
  return returned
end

local last_session = 12 + tonumber(ARGV[12])
for i = last_session + 1, #ARGV do
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
redis.call('HSET', KEYS[2], 'updated', ARGV[7], 'step', ARGV[8], 'loss', ARGV[9],
  'learning_rate', ARGV[10], 'next', ARGV[11])
redis.call('HINCRBY', KEYS[2], 'measurements', #ARGV - last_session)
redis.call('HINCRBY', KEYS[2], 'lost', ARGV[3])
local result = RecordResult.STORED
if note_sessions(13, last_session) then
  redis.call('HSET', KEYS[2], 'concurrent', ARGV[7])
  result = RecordResult.CONCURRENT
end
for i = 2, #KEYS do
  redis.call('EXPIRE', KEYS[i], ARGV[5])
end
return {result}
