-- Where a stream stands, without its entries, and where a group in it does. KEYS: stream. ARGV: group, or nothing.
-- Answers the last id, and, where the server counts what is added (since Redis 7): how many were added, how many are left, the
-- first id of these, the last one that was deleted by itself; then the last id that the group was given, and how many
-- had been added by then (-1: the server does not know).
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {}
end
local function named(flat)
  local fields = {}
  for at = 1, #flat, 2 do
    fields[flat[at]] = flat[at + 1]
  end
  return fields
end
local stream = named(redis.call('XINFO', 'STREAM', KEYS[1]))
local answer = { stream['last-generated-id'] }
if stream['entries-added'] then
  answer[2], answer[3] = stream['entries-added'], stream['length']
  answer[4], answer[5] = stream['recorded-first-entry-id'], stream['max-deleted-entry-id']
  for _, flat in ipairs(ARGV[1] ~= '' and redis.call('XINFO', 'GROUPS', KEYS[1]) or {}) do
    local group = named(flat)
    if group['name'] == ARGV[1] then
      answer[6], answer[7] = group['last-delivered-id'], group['entries-read'] or -1
    end
  end
end
return answer
