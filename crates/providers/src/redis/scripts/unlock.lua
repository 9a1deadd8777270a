-- Deletes the lock KEYS[1] if ARGV[1] owns it. Answers -1 if nobody holds it, -2 if somebody else does.
local owner = redis.call('GET', KEYS[1])
if not owner then return -1 end
if owner ~= ARGV[1] then return -2 end
return redis.call('DEL', KEYS[1])
