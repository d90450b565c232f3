-- What the store does in one step on its server, see redis.py and parts.py. A script begins at a line `--- NAME` with the
-- other parts of this file that it starts with.
--
-- A server without memory runs those that take next to none, or give some back (always): replicas stay known, and what is
-- learned is forgotten. Reading needs nobody's leave to write, which a read-only server refuses (reads).

--- always
#!lua flags=allow-oom
--- reads
#!lua flags=no-writes

--- log
-- How the scripts of the log begin. KEYS = log, log:counts, log:marks. Numbers are written by %.0f: Lua would write
-- large ones as 1e+15.
local log, counts, marks = KEYS[1], KEYS[2], KEYS[3]
local function count(name) return tonumber(redis.call('HGET', counts, name) or '0') end
local function id(events) return string.format('%.0f-0', events) end
local function groups()  -- group -> events acknowledged
  local acknowledged = {}
  if redis.call('EXISTS', log) == 0 then return acknowledged end
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', log)) do
    local group = {}
    for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
    acknowledged[group['name']] = tonumber(string.match(group['last-delivered-id'], '^%d+'))
  end
  return acknowledged
end
local function forget()  -- what every group has acknowledged; nothing while there is no group
  local slowest = nil
  for _, events in pairs(groups()) do slowest = math.min(slowest or events, events) end
  if slowest and slowest > count('forgotten') then
    redis.call('XTRIM', log, 'MINID', id(slowest + 1))
    redis.call('HSET', counts, 'forgotten', string.format('%.0f', slowest))
  end
end

--- append log
-- KEYS = ..., log:keys, log:keys:before. ARGV = batch, events, writer, mark, capacity, REMEMBERED, MAX_KEYS, keys.
-- Answers {1, id}, {0, events that wait} or {2, known keys}. Keys are forgotten by the set: each begins to run out when
-- the next one begins, so that nothing has to look for those that are old.
local batch, events, writer, mark, capacity = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
local recent, before, remembered, max_keys, first = KEYS[4], KEYS[5], tonumber(ARGV[6]), tonumber(ARGV[7]), 8
if writer ~= '' and mark ~= '' then
  local last = redis.call('HGET', marks, writer) or ''
  local space = string.find(last, ' ', 1, true)
  if space and string.sub(last, space + 1) == mark then return {1, string.sub(last, 1, space - 1)} end
end
local known = {}
for i = first, #ARGV do
  local key = ARGV[i]
  if redis.call('SISMEMBER', recent, key) + redis.call('SISMEMBER', before, key) > 0 then known[#known + 1] = key end
end
if #known > 0 then
  if #known > #ARGV - first and writer ~= '' then
    redis.call('HSET', marks, writer, id(count('appended')) .. ' ' .. mark)
  end
  return {2, known}
end
local waiting = count('appended') - count('forgotten')
if waiting + events > capacity then return {0, waiting} end
local new = id(redis.call('HINCRBY', counts, 'appended', events))
redis.call('XADD', log, new, 'batch', batch)
if writer ~= '' then redis.call('HSET', marks, writer, new .. ' ' .. mark) end
if #ARGV >= first then
  local left = redis.call('TTL', recent)
  if left >= 0 and (left <= remembered or redis.call('SCARD', recent) >= max_keys) then
    redis.call('UNLINK', before)
    redis.call('RENAME', recent, before)
    redis.call('EXPIRE', before, remembered)
    left = -2
  end
  for i = first, #ARGV do redis.call('SADD', recent, ARGV[i]) end
  if left < 0 then redis.call('EXPIRE', recent, 2 * remembered) end
end
return {1, new}

--- join log
-- ARGV = 1 where no other group of their kind may be there, else 0; groups. Answers such another one's name, or ''.
local joining, kinds, known = {}, {}, groups()
local function kind(group) return string.match(group, '^[^-]*') end
for i = 2, #ARGV do joining[ARGV[i]], kinds[kind(ARGV[i])] = true, true end
for group in pairs(known) do
  if ARGV[1] == '1' and kinds[kind(group)] and not joining[group] then return group end
end
for group in pairs(joining) do
  if not known[group] then redis.call('XGROUP', 'CREATE', log, group, id(count('forgotten')), 'MKSTREAM') end
end
return ''

--- leave always log
if groups()[ARGV[1]] then
  redis.call('XGROUP', 'DESTROY', log, ARGV[1])
  forget()
end

--- acknowledge always log
-- ARGV = group, events. Answers the events appended, or -1 where the group has not joined.
local group, events, appended = ARGV[1], tonumber(ARGV[2]), count('appended')
local before = groups()[group]
if not before then return -1 end
if events > before and events <= appended then
  redis.call('XGROUP', 'SETID', log, group, id(events))
  forget()
end
return appended

--- set_aside
-- KEYS = quarantine. ARGV = id, why, data, QUARANTINE. Answers 1, or 0 where it is there, or was.
local function events(id) return tonumber(string.match(id, '^%d+')) end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if last and events(last[1]) >= events(ARGV[1]) then return 0 end
redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[4], ARGV[1], 'why', ARGV[2], 'data', ARGV[3])
return 1

--- put_piece
-- KEYS = a writer's part. ARGV = number of the piece, piece, UPLOAD. Answers 1, or 0 where those before it ran out.
-- May be repeated, unlike RPUSH alone.
local length, number = redis.call('LLEN', KEYS[1]), tonumber(ARGV[1])
if length < number then return 0 end
if length == number then redis.call('RPUSH', KEYS[1], ARGV[2]) end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1

--- make_whole
-- KEYS = a writer's part, all of it, and the part. ARGV = UPLOAD. Answers 1, or 0 where neither is there. What is there
-- already under its digest has the same bytes, and may be announced: then it does not run out.
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('UNLINK', KEYS[1])
  if redis.call('TTL', KEYS[2]) >= 0 then redis.call('EXPIRE', KEYS[2], ARGV[1]) end
  return 1
end
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('RENAME', KEYS[1], KEYS[2])
return 1

--- hand_in
-- KEYS = pending. ARGV = the shard, what it hands in, UPLOAD. Answers all that is there: shards and what each handed in.
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return redis.call('HGETALL', KEYS[1])

--- publish
-- KEYS = generations, the new parts. ARGV = generation, manifest, KEPT. Answers 1, or 0 where a part ran out before.
-- The caller looks first; a generation that another announced in between is left to it (answer -1).
local generations, generation, kept = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[3])
local last = redis.call('XREVRANGE', generations, '+', '-', 'COUNT', 1)[1]
if last and tonumber(string.match(last[1], '^%d+')) > generation then return -1 end
local fields = {'manifest', ARGV[2]}
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then return 0 end
  fields[#fields + 1] = 'part'
  fields[#fields + 1] = KEYS[i]
end
for i = 2, #KEYS do redis.call('PERSIST', KEYS[i]) end
redis.call('XADD', generations, string.format('%.0f-0', generation + 1), unpack(fields))
local all = redis.call('XRANGE', generations, '-', '+')
for i = 1, #all - kept do
  for field = 4, #all[i][2], 2 do redis.call('UNLINK', all[i][2][field]) end
  redis.call('XDEL', generations, all[i][1])
end
return 1

--- now
-- What scripts begin with that need the time, in ms since the unix epoch.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

--- claim always now
-- KEYS = leases. ARGV = owner, duplicates, milliseconds.
local leases, owner, duplicates, milliseconds = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local held, mine = {}, nil
local all = redis.call('HGETALL', leases)
for i = 1, #all, 2 do
  local number, ending = string.match(all[i + 1], '^(%d+) (%d+)$')
  number = tonumber(number)
  if tonumber(ending) <= now then redis.call('HDEL', leases, all[i])
  elseif all[i] == owner then mine = number
  else held[number] = (held[number] or 0) + 1 end
end
if not mine or mine >= duplicates then
  mine = 0
  for number = 1, duplicates - 1 do
    if (held[number] or 0) < (held[mine] or 0) then mine = number end
  end
end
redis.call('HSET', leases, owner, string.format('%d %.0f', mine, now + milliseconds))
return mine

--- claim_shard always now
-- KEYS = shards. ARGV = owner, shards, milliseconds. Answers the number, or -1 where others hold all.
local owner, shards = ARGV[1], tonumber(ARGV[2])
local held, mine = {}, nil
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local number, ending = string.match(all[i + 1], '^(%d+) (%d+)$')
  number = tonumber(number)
  if all[i] == owner then mine = number
  elseif tonumber(ending) <= now then redis.call('HDEL', KEYS[1], all[i])
  else held[number] = true end
end
if mine and (held[mine] or mine >= shards) then mine = nil end
for number = 0, shards - 1 do
  if not mine and not held[number] then mine = number end
end
if not mine then
  redis.call('HDEL', KEYS[1], owner)
  return -1
end
redis.call('HSET', KEYS[1], owner, string.format('%d %.0f', mine, now + tonumber(ARGV[3])))
return mine

--- announce always now
-- KEYS = members. ARGV = name, milliseconds, JSON. Forgets those that have run out.
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if tonumber(string.match(all[i + 1], '^(%d+) ')) <= now then redis.call('HDEL', KEYS[1], all[i]) end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f ', now + tonumber(ARGV[2])) .. ARGV[3])

--- members reads now
-- KEYS = members. Answers the JSON of those that have not run out.
local members, all = {}, redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local ending, member = string.match(all[i + 1], '^(%d+) (.*)$')
  if tonumber(ending) > now then members[#members + 1] = member end
end
return members
