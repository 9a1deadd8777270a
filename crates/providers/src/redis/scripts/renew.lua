-- Lets the lock KEYS[1] expire ARGV[2] milliseconds from now if ARGV[1] owns it. Answers -1 if nobody holds it, -2 if
-- somebody else does.
local owner = redis.call('GET', KEYS[1])
if not owner then return -1 end
if owner ~= ARGV[1] then return -2 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
