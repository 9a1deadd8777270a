-- Adds ARGV[1] to the number at KEYS[1]; a new key lives for ARGV[2] milliseconds (empty: for ever).
-- Answers { 'sum', the sum }, { 'number' } or { 'overflow' }.
local key = KEYS[1]
local found = redis.pcall('HMGET', key, 'data', 'version')
if found.err then return { 'number' } end

local sum = redis.pcall('HINCRBY', key, 'data', ARGV[1])
if type(sum) == 'table' and found[1] and not string.find(sum.err, 'overflow', 1, true) then
  -- Redis knows numbers in one spelling only: no plus sign, no leading zeros.
  local sign, digits = string.match(found[1], '^([+-]?)0*(%d+)$')
  if not digits then return { 'number' } end
  if sign == '-' and digits ~= '0' then digits = '-' .. digits end
  redis.call('HSET', key, 'data', digits)
  sum = redis.pcall('HINCRBY', key, 'data', ARGV[1])
  if type(sum) == 'table' then redis.call('HSET', key, 'data', found[1]) end
end
if type(sum) == 'table' then
  if string.find(sum.err, 'overflow', 1, true) then return { 'overflow' } end
  return { 'number' }
end

local bumped = found[2] and redis.pcall('HINCRBY', key, 'version', 1)
if type(bumped) ~= 'number' then
  local now = redis.call('TIME')
  redis.call('HSET', key, 'version', string.format('%s%06d', now[1], now[2]))
end
if not found[1] and ARGV[2] ~= '' then redis.call('PEXPIRE', key, ARGV[2]) end
-- As text: numbers of Lua do not hold 64 bits.
return { 'sum', redis.call('HGET', key, 'data') }
