-- Says that the entries ARGV[3..] of the stream KEYS[1] are still in the hands of consumer ARGV[2] of group ARGV[1]:
-- their idle time begins anew. Entries that somebody else has claimed meanwhile stay with him.
local key, group, consumer = KEYS[1], ARGV[1], ARGV[2]
for i = 3, #ARGV do
  local pending = redis.call('XPENDING', key, group, ARGV[i], ARGV[i], 1)
  if pending[1] and pending[1][2] == consumer then
    redis.call('XCLAIM', key, group, consumer, 0, ARGV[i], 'JUSTID')
  end
end
return #ARGV - 2
