-- Puts frames into a sorted set, to be passed on after a while. The delay is relative, so that it is measured by one clock,
-- the server's. KEYS: sorted set. ARGV: milliseconds and frame in turn.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.ceil(time[2] / 1000)
for at = 1, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[at])), ARGV[at + 1])
end
return #ARGV / 2
