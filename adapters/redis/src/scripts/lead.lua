-- Takes or renews the lease of a group's readers: of the one that keeps order, or of all that share (':shared').
-- KEYS: lease. ARGV: session (of those that share, the milliseconds), instance or ':shared', milliseconds.
-- The lease is the text `end session instance`, the end in milliseconds since 1970. A later session of an instance takes it
-- from an earlier one, never the other way round: what an earlier one has sent may be carried out after the later one has
-- begun. It has no time to live: what has one may be evicted, and then two would read.
-- Of those that share, the one with the longest lease has it, as long as it renews it.
-- Answers 0 while it is another's, 1 where this instance has had it all the time, 2 where it was free, 3 while it is held by
-- one that keeps order and those that share ask for it, or the other way round; and of those that share, that longest lease.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function put(ends, holder)
  -- A server at its maxmemory refuses what takes memory if it is a script's first write. The lease must go on: only what
  -- reads frees memory.
  redis.call('DEL', KEYS[1])
  redis.call('SET', KEYS[1], string.format('%.0f ', ends) .. holder)
end
local lease, answer = redis.call('GET', KEYS[1]), 2
if lease then
  local ends, session, instance = string.match(lease, '^(%d+) (%d+) (.*)$')
  local ours = instance == ARGV[2] and (instance == ':shared' or tonumber(session) <= tonumber(ARGV[1]))
  if ends and tonumber(ends) <= now then
    answer = 2
  elseif ours then
    answer = 1
    local left = tonumber(ends) - now
    if instance == ':shared' and left > tonumber(ARGV[3]) and left <= tonumber(session) then
      return { answer, tonumber(session) }
    end
  else
    local longest = 3600000
    if ends and tonumber(ends) > now + longest then
      -- The clock was set back meanwhile. Nobody is given a longer one, so its holder, if it lives, renews it before.
      put(now + longest, session .. ' ' .. instance)
    end
    if (instance == ':shared') ~= (ARGV[2] == ':shared') then
      return { 3, 0 }
    end
    return { 0, 0 }
  end
end
put(now + tonumber(ARGV[3]), ARGV[1] .. ' ' .. ARGV[2])
return { answer, tonumber(ARGV[3]) }
