-- Moves a dead letter to its group's inbox. KEYS: dead letters, inbox. ARGV: id, frame.
-- Answers 1, or 0 if it is not there (any more).
if #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1]) == 0 then
  return 0
end
redis.call('XADD', KEYS[2], '*', ':frame', ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
