-- Gives the lease of an ordered group up, unless a later session has it. KEYS: lease. ARGV: session, instance.
local session, instance = string.match(redis.call('GET', KEYS[1]) or '', '^%d+ (%d+) (.*)$')
if instance == ARGV[2] and tonumber(session) <= tonumber(ARGV[1]) then
  return redis.call('DEL', KEYS[1])
end
return 0
