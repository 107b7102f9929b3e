-- Accounts that several routers share: the same rules as accounts.py, atomically.
-- KEYS[1]: hash of one account; KEYS[2]: its open reservations by the time at which they end; KEYS[3]: settled mark.
-- ARGV: operation, now, id, seconds (until a reservation ends, or that a mark is kept), then for each rule six fields:
-- name, kind, limit, amount (reserved, or in truth), reserved before, window.
-- Answers of reserve: 1 or 0, index of the rule that denies, then what is used of each rule that was looked at.
local account, open, mark = KEYS[1], KEYS[2], KEYS[3]
local operation, now, id, seconds = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local MINUTE, KEEP = 60, 3456000

local rules = {}
for at = 5, #ARGV, 6 do
  rules[#rules + 1] = {
    name = ARGV[at], kind = ARGV[at + 1], limit = tonumber(ARGV[at + 2]), amount = tonumber(ARGV[at + 3]),
    before = tonumber(ARGV[at + 4]), window = tonumber(ARGV[at + 5]),
  }
end

local function number(field) return tonumber(redis.call('HGET', account, field) or '') end

local function used(rule)
  if rule.kind == 'open' then return redis.call('ZCARD', open) end
  if rule.kind == 'rate' then
    local level, at = number(rule.name .. ':level'), number(rule.name .. ':at')
    if not level then return 0 end
    return math.max(0, level - math.max(0, now - at) * rule.limit / MINUTE)
  end
  if number(rule.name .. ':window') == rule.window then return number(rule.name .. ':used') or 0 end
  return 0
end

local function add(rule, amount)
  if rule.kind == 'rate' then
    local level, at = math.max(0, used(rule) + amount), number(rule.name .. ':at') or now
    redis.call('HSET', account, rule.name .. ':level', string.format('%.17g', level),
      rule.name .. ':at', string.format('%.17g', math.max(now, at)))
  elseif rule.kind == 'window' then
    local current = number(rule.name .. ':window')
    if not current or current < rule.window then
      redis.call('HSET', account, rule.name .. ':window', string.format('%.0f', rule.window), rule.name .. ':used', '0')
      current = rule.window
    end
    if current == rule.window then
      redis.call('HSET', account, rule.name .. ':used', string.format('%.0f', math.max(0, used(rule) + amount)))
    end
  end
end

-- A reservation's windows: name=amount=window; ...
local function give_back(which)
  for name, amount, window in string.gmatch(redis.call('HGET', account, 'open:' .. which) or '', '([^=;]+)=(%d+)=(%d+);') do
    add({name = name, kind = 'window', window = tonumber(window)}, -tonumber(amount))
  end
  redis.call('HDEL', account, 'open:' .. which)
  redis.call('ZREM', open, which)
end

local function keep()
  redis.call('EXPIRE', account, KEEP)
  redis.call('EXPIRE', open, KEEP)
end

if operation == 'settle' then
  if not redis.call('SET', mark, '1', 'NX', 'EX', math.ceil(seconds)) then return 0 end
  local held = {}
  local record = redis.call('HGET', account, 'open:' .. id)
  for name, amount, window in string.gmatch(record or '', '([^=;]+)=(%d+)=(%d+);') do
    held[name] = {tonumber(amount), tonumber(window)}
  end
  redis.call('HDEL', account, 'open:' .. id)
  redis.call('ZREM', open, id)
  for _, rule in ipairs(rules) do
    if rule.kind == 'window' then
      local reserved = held[rule.name]
      if reserved then rule.window = reserved[2] end
      add(rule, rule.amount - (reserved and reserved[1] or 0))
    else
      add(rule, rule.amount - rule.before)
    end
  end
  keep()
  return 1
end

for _, leaked in ipairs(redis.call('ZRANGEBYSCORE', open, '-inf', string.format('%.17g', now), 'LIMIT', 0, 64)) do
  give_back(leaked)
end
local answer, record = {1, 0}, ''
for index, rule in ipairs(rules) do
  if rule.kind == 'window' then rule.window = math.max(rule.window, number(rule.name .. ':window') or 0) end
  local taken = used(rule)
  if taken + rule.amount > rule.limit then
    answer[1], answer[2] = 0, index
    answer[#answer + 1] = string.format('%.17g', taken)
    return answer
  end
  answer[#answer + 1] = string.format('%.17g', taken + rule.amount)
  if rule.kind == 'window' then
    record = record .. rule.name .. '=' .. string.format('%.0f', rule.amount) .. '=' .. string.format('%.0f', rule.window) .. ';'
  end
end
for _, rule in ipairs(rules) do add(rule, rule.amount) end
redis.call('HSET', account, 'open:' .. id, record)
redis.call('ZADD', open, string.format('%.17g', now + seconds), id)
keep()
return answer
