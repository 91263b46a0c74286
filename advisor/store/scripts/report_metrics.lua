-- Appends reports to a run's capped metrics, all of them or none.
--
-- KEYS: summary, events, metrics, metric names
-- ARGV: lifetime in s, maximum number of reports kept, maximum number of metrics, time in ms, number of
-- names, the names; then for each report: step, number of values, and for each value the position of
-- its name from 1 and the value
-- Returns {ReportMetricsOutcome}; with TOO_MANY also the number of metrics that the run would have.

if redis.call('HEXISTS', KEYS[1], 'measurements') == 0 then
  return {ReportMetricsOutcome.NO_RUN}
end
local stored = redis.call('HGETALL', KEYS[4])
local numbers, count = {}, #stored / 2
for i = 1, #stored, 2 do
  numbers[stored[i]] = stored[i + 1]
end
local FIRST_NAME = 6
local names = tonumber(ARGV[5])
local new = {}
for i = FIRST_NAME, FIRST_NAME + names - 1 do
  if not numbers[ARGV[i]] then
    count = count + 1
    numbers[ARGV[i]] = tostring(count)
    new[#new + 1] = ARGV[i]
    new[#new + 1] = tostring(count)
  end
end
if count > tonumber(ARGV[3]) then
  return {ReportMetricsOutcome.TOO_MANY, count}
end
if #new > 0 then
  redis.call('HSET', KEYS[4], unpack(new))
end
local i = FIRST_NAME + names
while i <= #ARGV do
  local fields = {'step', ARGV[i], 'time', ARGV[4]}
  local last = i + 1 + 2 * tonumber(ARGV[i + 1])
  for j = i + 2, last, 2 do
    fields[#fields + 1] = numbers[ARGV[FIRST_NAME - 1 + tonumber(ARGV[j])]]
    fields[#fields + 1] = ARGV[j + 1]
  end
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[2], '*', unpack(fields))
  i = last + 1
end
for _, key in ipairs(KEYS) do
  redis.call('EXPIRE', key, ARGV[1])
end
return {ReportMetricsOutcome.STORED}
