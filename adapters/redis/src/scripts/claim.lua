-- Takes over pending entries, and says how often each was delivered.
-- KEYS: stream, and of an ordered group its lease. ARGV: group, consumer, most bytes, then
--   'idle' milliseconds id id …: these, where they still are idle for so long
--   'mine' id id …: these, where they still are pending for this consumer
--   'any' holder id id …: these, whoever's they are: for the leader of an ordered group, if the lease names this holder
-- A `=` before an id: it was claimed before and the answer did not arrive, so that delivery counts already.
-- Answers: entries, their delivery counts, how many had been deleted under the group, how many ids were looked at: the last
-- one filled the bytes.
local stream, group, consumer, mode = KEYS[1], ARGV[1], ARGV[2], ARGV[4]
local entries, counts, deleted, bytes = {}, {}, 0, 0
local first, idle = 5, 0
if mode == 'idle' then
  first, idle = 6, tonumber(ARGV[5])
elseif mode == 'any' then
  first = 6
  if string.match(redis.call('GET', KEYS[2]) or '', '^%d+ (.*)$') ~= ARGV[5] then
    return { entries, counts, deleted, #ARGV + 1 - first }
  end
end
local n = first
while n <= #ARGV and bytes < tonumber(ARGV[3]) do
  local again, id = string.match(ARGV[n], '^(=?)(.*)$')
  local pending = redis.call('XPENDING', stream, group, id, id, 1)[1]
  if pending and (mode ~= 'mine' or pending[2] == consumer) and pending[3] >= idle then
    local count = pending[4]
    if again == '' then
      count = count + 1
    end
    local entry = redis.call('XCLAIM', stream, group, consumer, 0, id, 'RETRYCOUNT', count)[1]
    if entry and entry[2] then
      entries[#entries + 1] = entry
      counts[#counts + 1] = count
      for _, text in ipairs(entry[2]) do
        bytes = bytes + #text
      end
    else
      -- Redis 6.2 keeps it pending for ever, Redis 7 has just removed it.
      redis.call('XACK', stream, group, id)
      deleted = deleted + 1
    end
  end
  n = n + 1
end
return { entries, counts, deleted, n - first }
