-- Reads for an ordered group, if the lease is this session's at this very moment: a former leader reads nothing, nor does a
-- former session of the same instance, which nobody would take it from. A lease that is over and that nobody has taken since
-- is as good as ever.
-- KEYS: lease, then streams. ARGV: holder as the lease names it, instance, group, most per stream.
-- Answers: 1 if it is the leader's, what was read as XREADGROUP gives it, and where each stream's group stands.
if string.match(redis.call('GET', KEYS[1]) or '', '^%d+ (.*)$') ~= ARGV[1] then
  return { 0, {}, {} }
end
local command = { 'XREADGROUP', 'GROUP', ARGV[3], ARGV[2], 'COUNT', ARGV[4], 'STREAMS' }
for n = 2, #KEYS do
  command[#command + 1] = KEYS[n]
end
for _ = 2, #KEYS do
  command[#command + 1] = '>'
end
local read = redis.call(unpack(command)) or {}
local positions = {}
for n = 2, #KEYS do
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[n])) do
    local group = {}
    for at = 1, #flat, 2 do
      group[flat[at]] = flat[at + 1]
    end
    if group['name'] == ARGV[3] then
      positions[n - 1] = group['last-delivered-id']
    end
  end
end
return { 1, read, positions }
