-- The generic cell rate algorithm on the server's own clock, in one step. The debt is a time: whole microseconds, and a
-- rest in parts of the next. A microsecond has as many parts as the limit needs for every debt to be exact.
local cost, cost_rest = tonumber(ARGV[1]), tonumber(ARGV[2])
local credit, credit_rest = tonumber(ARGV[3]), tonumber(ARGV[4])
local parts, period, longest = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local debt, rest = 0, 0
local old = redis.call('GET', KEYS[1]) or ''
local old_debt, old_rest, at, old_parts, old_period = string.match(old, '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
if old_debt then
  -- Time pays. A clock that was set back pays nothing, and takes nothing back.
  debt, rest = tonumber(old_debt) - math.max(0, now - tonumber(at)), tonumber(old_rest)
  if debt < 0 then
    debt, rest = 0, 0
  end
  -- Under another limit than the one it was made under, a debt is carried over permit for permit.
  old_parts, old_period = tonumber(old_parts), tonumber(old_period)
  if old_parts ~= parts or old_period ~= period then
    debt, rest = math.ceil((debt + rest / old_parts) * (period / old_period) * (old_parts / parts)), 0
  end
end

debt, rest = debt + cost, rest + cost_rest
if rest >= parts then
  debt, rest = debt + 1, rest - parts
end
local wait = debt - credit
if rest > credit_rest then
  wait = wait + 1
end
wait = math.max(0, wait)
if wait > longest then
  return {0, wait, '', ''}
end
local new = string.format('%.0f %.0f %.0f %.0f %.0f', debt, rest, now, parts, period)
-- A debt that is paid is none: the key goes, by a clock that shows whole milliseconds.
redis.call('SET', KEYS[1], new, 'PX', string.format('%.0f', math.floor(debt / 1000) + 2))
return {1, wait, new, old}
