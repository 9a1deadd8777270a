-- Applies writes in order, or none of them. KEYS[i] is the key of the i-th write; six arguments belong to it:
--   1 'set' or 'delete'
--   2 the condition: 'any', 'absent' (the key must not be there) or 'etag' (its version must be argument 3)
--   3 the etag
--   4 'first' where the writer asked for first-write, as Dapr's script notes down
--   5 the value
--   6 milliseconds to live; empty: for ever
-- Answers 0, or the number of the first write whose condition does not hold.
local WIDTH = 6

local function version(key)
  local found = redis.pcall('HGET', key, 'version')
  -- Something else under the key is there, and has no version.
  if type(found) == 'table' then return true end
  return found
end

-- Versions as the writes will see them, each after the ones before it. No etag equals true.
local seen = {}
for i, key in ipairs(KEYS) do
  local at = (i - 1) * WIDTH
  local current = seen[key]
  if current == nil then current = version(key) end
  local condition = ARGV[at + 2]
  if condition == 'absent' and current then return i end
  if condition == 'etag' and current ~= ARGV[at + 3] then return i end
  seen[key] = ARGV[at + 1] == 'set'
end

-- A key that comes back does not come back with an etag that it had before.
local function first_version()
  local now = redis.call('TIME')
  return string.format('%s%06d', now[1], now[2])
end

for i, key in ipairs(KEYS) do
  local at = (i - 1) * WIDTH
  if ARGV[at + 1] == 'delete' then
    redis.call('DEL', key)
  else
    local current = redis.pcall('HGET', key, 'version')
    if type(current) == 'table' then
      redis.call('DEL', key)
      current = false
    end
    redis.call('HSET', key, 'data', ARGV[at + 5])
    if ARGV[at + 4] == 'first' then redis.call('HSET', key, 'first-write', '0') end
    local bumped = current and redis.pcall('HINCRBY', key, 'version', 1)
    if type(bumped) ~= 'number' then redis.call('HSET', key, 'version', first_version()) end
    if ARGV[at + 6] == '' then
      redis.call('PERSIST', key)
    else
      redis.call('PEXPIRE', key, ARGV[at + 6])
    end
  end
end
return 0
