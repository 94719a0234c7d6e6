-- Settles deliveries together with what they emit: for each, everything is added and the entry acknowledged, or nothing is.
-- KEYS: topic stream, inbox stream, then targets. ARGV: group, consumer, then per settlement: index of the source key, id,
-- number of emits, and per emit: index of the target key and
--   'delay' milliseconds frame | 'frame' frame | 'entry' count name value name value …
-- Answers per settlement: 1 done, 0 not this consumer's any more, or the error that kept it from being done.
local group, consumer = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.ceil(time[2] / 1000)
local at, answers = 3, {}
while at <= #ARGV do
  local index, id, emits = tonumber(ARGV[at]), ARGV[at + 1], tonumber(ARGV[at + 2])
  local source = KEYS[index]
  at = at + 3
  local ours = #redis.call('XPENDING', source, group, id, id, 1, consumer) > 0
  local failure = nil
  for _ = 1, emits do
    local target, kind = KEYS[tonumber(ARGV[at])], ARGV[at + 1]
    local command
    if kind == 'delay' then
      command = { 'ZADD', target, string.format('%.0f', now + tonumber(ARGV[at + 2])), ARGV[at + 3] }
      at = at + 4
    elseif kind == 'frame' then
      command = { 'XADD', target, '*', ':frame', ARGV[at + 2] }
      at = at + 3
    else
      command = { 'XADD', target, '*' }
      local count = tonumber(ARGV[at + 2])
      for n = 1, count do
        command[3 + n] = ARGV[at + 2 + n]
      end
      at = at + 3 + count
    end
    if ours and not failure then
      local reply = redis.pcall(unpack(command))
      if type(reply) == 'table' and reply.err then
        failure = reply.err
      end
    end
  end
  if not ours then
    answers[#answers + 1] = 0
  elseif failure then
    answers[#answers + 1] = failure
  else
    redis.call('XACK', source, group, id)
    if index == 2 then
      redis.call('XDEL', source, id)
    end
    answers[#answers + 1] = 1
  end
end
return answers
