-- Removes what every group has acknowledged and what is older than the retention; never anything else, and nothing at all
-- from a topic of dead letters. A topic without groups loses what is older than the retention; an inbox loses nothing then:
-- its group has vanished, and will read from the beginning.
-- Ids further ahead of the clock than the retention and a minute tell nothing about age: the clock was ahead once, or somebody
-- chose an id, and whatever follows comes behind that. There, what every group has acknowledged goes whatever its age.
-- KEYS: stream, mark of a topic of dead letters. ARGV: retention in milliseconds, 'topic' | 'inbox'. Answers how many were
-- removed, and whether the ids are that far ahead.
if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('EXISTS', KEYS[2]) == 1 then
  return { 0, 0 }
end

-- Ids are compared as text: their halves need more digits than a Lua number has.
local function less_text(a, b)
  if #a ~= #b then
    return #a < #b
  end
  return a < b
end
local function less(a, b)
  local a1, a2 = string.match(a, '(%d+)-(%d+)')
  local b1, b2 = string.match(b, '(%d+)-(%d+)')
  if a1 ~= b1 then
    return less_text(a1, b1)
  end
  return less_text(a2, b2)
end

local time, retention = redis.call('TIME'), tonumber(ARGV[1])
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local bound = string.format('%.0f-0', math.max(0, now - retention))
local groups = redis.call('XINFO', 'GROUPS', KEYS[1])
if ARGV[2] == 'inbox' and #groups == 0 then
  return { 0, 0 }
end
local stream = redis.call('XINFO', 'STREAM', KEYS[1])
local ahead = 0
for at = 1, #stream, 2 do
  if stream[at] == 'last-generated-id' and tonumber(string.match(stream[at + 1], '%d+')) > now + retention + 60000 then
    ahead = 1
  end
end
if ahead == 1 and #groups > 0 then
  bound = '18446744073709551615-0'
end
for _, flat in ipairs(groups) do
  local group = {}
  for at = 1, #flat, 2 do
    group[flat[at]] = flat[at + 1]
  end
  local keep = group['last-delivered-id']
  if group['pending'] > 0 then
    -- A group that was set back may have that behind it unread.
    local first = redis.call('XPENDING', KEYS[1], group['name'])[2]
    if less(first, keep) then
      keep = first
    end
  end
  if less(keep, bound) then
    bound = keep
  end
end
-- Whole nodes of about a hundred entries, so that it costs little; at most so many that nobody waits long.
return { redis.call('XTRIM', KEYS[1], 'MINID', '~', bound, 'LIMIT', 10000), ahead }
