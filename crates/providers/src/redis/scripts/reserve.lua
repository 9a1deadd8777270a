-- Reserves ARGV[1] ids of the sequence KEYS[1] above the floor ARGV[2] and returns the last of them, or nothing if there
-- are no numbers left. Numbers are compared and returned as text: Lua's hold 53 bits.
local last, floor = redis.call('GET', KEYS[1]) or '0', ARGV[2]
if #last < #floor or (#last == #floor and last < floor) then
  redis.call('SET', KEYS[1], floor)
end
local answer = redis.pcall('INCRBY', KEYS[1], ARGV[1])
if type(answer) == 'table' and answer.err then
  if string.find(answer.err, 'overflow') then return false end
  return answer
end
return redis.call('GET', KEYS[1])
