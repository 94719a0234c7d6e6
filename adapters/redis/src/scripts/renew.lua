-- Renews the leases of entries, where they are still this consumer's. JUSTID leaves the delivery count alone.
-- KEYS: stream. ARGV: group, consumer, ids. Answers the ids that are not this consumer's any more.
local lost = {}
for n = 3, #ARGV do
  if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[n], ARGV[n], 1, ARGV[2]) > 0 then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[n], 'JUSTID')
  else
    lost[#lost + 1] = ARGV[n]
  end
end
return lost
