-- Renews the leases of entries, where they are still this consumer's. JUSTID leaves the delivery count alone.
-- KEYS: stream. ARGV: group, consumer, ids. Answers the ids that are not this consumer's any more, and those of entries that
-- were deleted: Redis 7 forgets here that they were pending.
local lost, deleted = {}, {}
for n = 3, #ARGV do
  if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[n], ARGV[n], 1, ARGV[2]) > 0 then
    if #redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[n], 'JUSTID') == 0 then
      deleted[#deleted + 1] = ARGV[n]
    end
  else
    lost[#lost + 1] = ARGV[n]
  end
end
return { lost, deleted }
