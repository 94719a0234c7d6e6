-- Counts the messages in ranges of sequence numbers that no instance of the group has claimed.
-- ARGV: what the claims' keys begin with, then per range: publisher, block, first bit, last bit (both within the block).
local lost = 0
for at = 2, #ARGV, 4 do
  local claim = ARGV[1] .. ARGV[at] .. '.' .. ARGV[at + 1]
  local first, last = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  if redis.call('EXISTS', claim) == 0 then
    lost = lost + last - first + 1
  elseif last - first == 32767 then
    lost = lost + 32768 - redis.call('BITCOUNT', claim)
  else
    for bit = first, last do
      lost = lost + 1 - redis.call('GETBIT', claim, bit)
    end
  end
end
return lost
