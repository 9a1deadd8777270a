-- Reads keys. For each: what it is, its data, its version, the time of its expiry in milliseconds (-1: never).
local answers = {}
for i, key in ipairs(KEYS) do
  local kind = 'hash'
  local found = redis.pcall('HMGET', key, 'data', 'version')
  if found.err then
    -- A plain string is what the oldest versions of Dapr wrote.
    local text = redis.pcall('GET', key)
    if type(text) == 'string' then
      kind, found = 'text', { text, false }
    else
      kind, found = 'other', { false, false }
    end
  end
  local expiry = redis.pcall('PEXPIRETIME', key)
  if type(expiry) == 'table' then
    -- Before Redis 7 the time of expiry has to be added up.
    expiry = redis.call('PTTL', key)
    if expiry >= 0 then
      local now = redis.call('TIME')
      expiry = expiry + now[1] * 1000 + math.floor(now[2] / 1000)
    end
  end
  answers[i] = { kind, found[1], found[2], expiry }
end
return answers
