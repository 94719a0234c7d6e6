-- How much of a stream lies before a group. KEYS: stream. ARGV: group, the consumer that holds what was given back.
-- Answers how many wait, those that were given back with them (-1: too many to count), and how many are delivered and not
-- settled.
local stream, name = KEYS[1], ARGV[1]
local group = nil
if redis.call('EXISTS', stream) == 1 then
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local one = {}
    for at = 1, #flat, 2 do
      one[flat[at]] = flat[at + 1]
    end
    if one['name'] == name then
      group = one
    end
  end
end
if not group then
  return { 0, 0 }
end

-- How many come after this id. They are looked at ten at a time, and not too many of them: that blocks the server.
local function count_after(last)
  local count, bytes = 0, 8000000
  while true do
    local page = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 10)
    for _, entry in ipairs(page) do
      last = entry[1]
      for _, text in ipairs(entry[2]) do
        bytes = bytes - #text
      end
    end
    count = count + #page
    if #page < 10 then
      return count
    elseif count > 1000 or bytes < 0 then
      return -1
    end
  end
end

local last, waiting = group['last-delivered-id'], nil
if #redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1) == 0 then
  -- Whatever the server counts: it forgets some of what was read when it starts again, and counts what was trimmed.
  waiting = 0
elseif group['lag'] then
  waiting = math.min(group['lag'], redis.call('XLEN', stream))
else
  waiting = count_after(last)
end
local given_back = 0
if group['pending'] > 0 then
  for _, consumer in ipairs(redis.call('XPENDING', stream, name)[4]) do
    if consumer[1] == ARGV[2] then
      given_back = tonumber(consumer[2])
    end
  end
end
if waiting >= 0 then
  waiting = waiting + given_back
end
return { waiting, group['pending'] - given_back }
