-- Forgets consumers of a group that hold nothing and have not been heard of for long.
-- KEYS: stream. ARGV: group, consumer that stays, milliseconds.
local gone = 0
for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for at = 1, #flat, 2 do
    consumer[flat[at]] = flat[at + 1]
  end
  if consumer['pending'] == 0 and consumer['idle'] > tonumber(ARGV[3]) and consumer['name'] ~= ARGV[2] then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer['name'])
    gone = gone + 1
  end
end
return gone
