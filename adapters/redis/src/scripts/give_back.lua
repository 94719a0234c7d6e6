-- Hands entries to whoever looks next: they become idle for a day under a name that nobody uses.
-- KEYS: stream, and of an ordered group its lease. ARGV: group, consumer, name, session of an ordered group, 'all' | 'some',
-- then ids and delivery counts in turn. A count is restored for what was fetched and never handed out; -1 leaves it. With
-- 'all', whatever else is pending goes too, and the consumer is deleted when nothing is left. Answers how many had been
-- deleted: Redis 7 forgets here that they were pending.
local stream, group, consumer, name = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
if KEYS[2] then
  local session, leader = string.match(redis.call('GET', KEYS[2]) or '', '^%d+ (%d+) (.*)$')
  if leader == consumer and tonumber(session) > tonumber(ARGV[4]) then
    -- A later session of this consumer has taken up what is pending.
    return 0
  end
end
local given, deleted = 0, 0
local function give(id, count)
  if #redis.call('XPENDING', stream, group, id, id, 1, consumer) == 0 then
    return
  end
  local claim = { 'XCLAIM', stream, group, name, 0, id, 'IDLE', 86400000, 'JUSTID' }
  if count >= 0 then
    claim[10], claim[11] = 'RETRYCOUNT', count
  end
  if #redis.call(unpack(claim)) == 0 then
    deleted = deleted + 1
  end
  given = given + 1
end
for at = 6, #ARGV, 2 do
  give(ARGV[at], tonumber(ARGV[at + 1]))
end
if ARGV[5] == 'all' then
  local left = redis.call('XPENDING', stream, group, '-', '+', 1000, consumer)
  while #left > 0 do
    local before = given
    for _, pending in ipairs(left) do
      give(pending[1], -1)
    end
    if given == before then
      break
    end
    left = redis.call('XPENDING', stream, group, '-', '+', 1000, consumer)
  end
  if #left == 0 then
    redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer)
  end
end
return deleted
