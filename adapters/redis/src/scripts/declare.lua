-- Makes an empty stream where there is none. KEYS: stream.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
redis.call('XGROUP', 'CREATE', KEYS[1], 'postrider', '$', 'MKSTREAM')
redis.call('XGROUP', 'DESTROY', KEYS[1], 'postrider')
return 1
