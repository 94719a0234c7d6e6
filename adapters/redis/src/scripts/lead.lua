-- Takes or renews the lease of an ordered group's one reader. KEYS: lease. ARGV: instance, milliseconds.
-- Answers 1 while it is this instance's.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
