-- Takes over pending entries, and says how often each was delivered.
-- KEYS: stream, and of an ordered group its lease. ARGV: group, consumer, then
--   'idle' milliseconds id id …: these, where they still are idle for so long
--   'mine' id id …: these, where they still are pending for this consumer
--   'any' holder id id …: these, whoever's they are: for the leader of an ordered group, if the lease names this holder
-- Answers: entries, their delivery counts, how many had been deleted under the group.
local stream, group, consumer, mode = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local entries, counts, deleted = {}, {}, 0
local first, idle = 4, 0
if mode == 'idle' then
  first, idle = 5, tonumber(ARGV[4])
elseif mode == 'any' then
  if string.match(redis.call('GET', KEYS[2]) or '', '^%d+ (.*)$') ~= ARGV[4] then
    return { entries, counts, deleted }
  end
  first = 5
end
for n = first, #ARGV do
  local id = ARGV[n]
  local pending = redis.call('XPENDING', stream, group, id, id, 1)[1]
  if pending and (mode ~= 'mine' or pending[2] == consumer) and pending[3] >= idle then
    local entry = redis.call('XCLAIM', stream, group, consumer, 0, id)[1]
    if entry and entry[2] then
      entries[#entries + 1] = entry
      counts[#counts + 1] = pending[4] + 1
    else
      -- Redis 6.2 keeps it pending for ever, Redis 7 has just removed it.
      redis.call('XACK', stream, group, id)
      deleted = deleted + 1
    end
  end
end
return { entries, counts, deleted }
