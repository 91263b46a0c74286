-- Calls the commands of the service once, on keys that exist only while this script runs.
--
-- KEYS: a hash, a sorted set, a stream, all of them for this script only
-- Returns command, error, command, error, ... of the commands that Redis refuses.

local hash, sorted, stream = KEYS[1], KEYS[2], KEYS[3]
local calls = {
  {'HSET', hash, 'field', '1'},
  {'HSETNX', hash, 'field', '1'},
  {'HINCRBY', hash, 'field', '1'},
  {'HGET', hash, 'field'},
  {'HGETALL', hash},
  {'HKEYS', hash},
  {'HMGET', hash, 'field'},
  {'HVALS', hash},
  {'HEXISTS', hash, 'field'},
  {'HDEL', hash, 'field'},
  {'ZADD', sorted, '0', 'member'},
  {'ZCOUNT', sorted, '-inf', '+inf'},
  {'ZLEXCOUNT', sorted, '-', '+'},
  {'ZMSCORE', sorted, 'member'},
  {'ZRANGEBYLEX', sorted, '-', '+'},
  {'ZREVRANGE', sorted, '0', '0'},
  {'ZREVRANGEBYLEX', sorted, '+', '-'},
  {'ZREVRANK', sorted, 'member'},
  {'ZREM', sorted, 'member'},
  {'XADD', stream, '*', 'field', '1'},
  {'XREAD', 'COUNT', '1', 'STREAMS', stream, '0'},
  {'XRANGE', stream, '-', '+'},
  {'XREVRANGE', stream, '+', '-'},
  {'TYPE', stream},
  {'EXPIRE', stream, '1'},
  {'DEL', hash, sorted, stream},
}
local refused = {}
for _, call in ipairs(calls) do
  local reply = redis.pcall(unpack(call))
  if type(reply) == 'table' and reply.err then
    refused[#refused + 1] = call[1]
    refused[#refused + 1] = reply.err
  end
end
return refused
