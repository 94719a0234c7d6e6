-- Takes or renews the lease of an ordered group's one reader. KEYS: lease. ARGV: session, instance, milliseconds.
-- The lease is the text `session instance`. A later session of an instance takes it from an earlier one, never the other way
-- round: what an earlier one has sent may be carried out after the later one has begun.
-- Answers 1 while it is this session's.
local lease = redis.call('GET', KEYS[1])
if lease then
  local session, instance = string.match(lease, '^(%d+) (.*)$')
  if instance ~= ARGV[2] or tonumber(session) > tonumber(ARGV[1]) then
    return 0
  end
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
return 1
