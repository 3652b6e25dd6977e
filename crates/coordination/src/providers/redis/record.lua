-- Before each script. Keys of one lock: the record (tooz' own key), its details, who waits, whether polling peers have room, since
-- when the lock goes from hand to hand among Scoria's instances; then the counter of fencing tokens of the whole namespace.
--
-- Who waits, and who takes or gives back, is written "CLAIM TTL DETAILS": 32 digits, milliseconds, JSON.
if redis.replicate_commands then redis.replicate_commands() end
local LOCK, HOLDER, WAITERS, ROOM, RUN, COUNTER = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

-- Microseconds as text: as a number Lua would round it when it writes it.
local function now()
    local time = redis.call('TIME')
    return time[1] .. string.sub('00000' .. time[2], -6)
end

local function claim_of(member)
    return string.sub(member, 1, 32)
end

-- The lock is this one's from now on. Returns the fencing token as text and the time to live.
local function grant(member, at)
    local claim, ttl, details = string.match(member, '^(%x+) (%d+) (.*)$')
    local last = redis.call('GET', COUNTER)
    local token = at
    if last and tonumber(last) >= tonumber(at) then token = string.format('%.0f', last + 1) end
    redis.call('SET', COUNTER, token)
    redis.call('SET', LOCK, claim, 'PX', ttl)
    redis.call('SET', HOLDER, claim .. ' ' .. token .. ' ' .. at .. ' ' .. details, 'PX', ttl)
    return token, tonumber(ttl)
end
