-- Takes Pub/Sub messages into a group's inbox, each once, whichever of its instances received it.
-- A claim is a bit at the message's sequence number, in a string for each publisher and 32768 numbers, that outlives its
-- last message by the window. It is set after the message is added: what fails between the two is a duplicate, not a loss.
-- KEYS: inbox. ARGV: what the claims' keys begin with, window in milliseconds, then per message:
--   publisher ('' does not count), sequence number's block, bit within it, field name, bytes
-- Answers how many were added.
local added = 0
for at = 3, #ARGV, 5 do
  local claim = nil
  if ARGV[at] ~= '' then
    claim = ARGV[1] .. ARGV[at] .. '.' .. ARGV[at + 1]
  end
  if not claim or redis.call('GETBIT', claim, ARGV[at + 2]) == 0 then
    redis.call('XADD', KEYS[1], '*', ':first', '1', ARGV[at + 3], ARGV[at + 4])
    if claim then
      redis.call('SETBIT', claim, ARGV[at + 2], 1)
      redis.call('PEXPIRE', claim, ARGV[2])
    end
    added = added + 1
  end
end
return added
