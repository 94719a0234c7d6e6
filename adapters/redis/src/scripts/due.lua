-- Passes on what is due. Every instance runs this; a frame is passed on once.
-- KEYS: sorted set, target. ARGV: 'inbox' | 'stream' | 'channel', the most to pass on, most bytes: the last one fills these.
-- Answers how many milliseconds remain until the next: 0 where more is due, -1 where there is none.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- The fields that a frame holds; too many for one Lua call stay in the frame, which readers take as well.
local function entry(frame)
  local count, at = struct.unpack('>I4', frame, 29)
  if count > 2000 then
    return { ':frame', frame }
  end
  local fields = {}
  for n = 1, 2 * count do
    local length
    length, at = struct.unpack('>I4', frame, at)
    fields[n] = string.sub(frame, at, at + length - 1)
    at = at + length
  end
  return fields
end

local function pass_on(frame)
  if ARGV[1] == 'inbox' then
    redis.call('XADD', KEYS[2], '*', ':frame', frame)
  elseif ARGV[1] == 'stream' then
    local is_frame, fields = pcall(entry, frame)
    if not is_frame or #fields == 0 then
      -- Somebody else's. It must not hold up what is behind it, and readers take it as a payload.
      fields = { ':frame', frame }
    end
    redis.call('XADD', KEYS[2], '*', unpack(fields))
  else
    redis.call('PUBLISH', KEYS[2], frame)
  end
  redis.call('ZREM', KEYS[1], frame)
end

-- A server at its maxmemory refuses what takes memory if it is a script's first write. This one removes nothing, and what
-- follows takes no more than it frees.
redis.call('ZREM', KEYS[1], '')
local passed, bytes = 0, 0
while passed < tonumber(ARGV[2]) and bytes < tonumber(ARGV[3]) do
  -- One, and then a few at a time: they may be large.
  local page = math.min(passed + 1, 10)
  local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, page)
  for _, frame in ipairs(due) do
    if bytes < tonumber(ARGV[3]) then
      pass_on(frame)
      passed, bytes = passed + 1, bytes + #frame
    end
  end
  if #due < page then
    break
  end
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if #first == 0 then
  return -1
end
return math.max(0, math.ceil(tonumber(first[2]) - now))
