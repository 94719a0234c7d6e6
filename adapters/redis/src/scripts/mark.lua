-- Marks a message as handled. KEYS: mark. ARGV: milliseconds.
-- A server at its maxmemory refuses what takes memory if it is a script's first write. Before it is marked, nothing is
-- acknowledged, and only that frees memory.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], '', 'PX', ARGV[1])
return 1
