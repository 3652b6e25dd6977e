-- Before each script. Keys of one lock: the record (tooz' own key), its details, who waits, whether polling peers have room, since
-- when the lock goes from hand to hand among Scoria's instances; then the counter of fencing tokens of the whole namespace.
--
-- Who waits, and who takes or gives back, is written "CLAIM TTL DETAILS": 32 digits, milliseconds, JSON.
if redis.replicate_commands then redis.replicate_commands() end
local LOCK, HOLDER, WAITERS, ROOM, RUN, COUNTER = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

-- Milliseconds. After RUN_MS from hand to hand the lock is left alone for ROOM_MS, so that a Python peer, which looks every PEER_MS,
-- finds it free; what waiters leave behind goes after KEEP_MS.
local RUN_MS, ROOM_MS, KEEP_MS, PEER_MS = 3000, 150, 10000, 100

local function now()
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
end

local function text(number)
    return string.format('%.0f', number)
end

local function claim_of(member)
    return string.sub(member, 1, 32)
end

-- Tells the instance in the details something about a claim; true when it listens, nil when nobody may be told anything here.
local function tell(details, channel, what)
    local heard = redis.pcall('PUBLISH', channel .. cjson.decode(details).instance, what)
    if type(heard) ~= 'number' then return nil end
    return heard > 0
end

-- A waiter waits no longer.
local function leave_line(waiter)
    redis.call('ZREM', WAITERS, waiter)
    if redis.call('EXISTS', WAITERS) == 0 then redis.call('DEL', RUN) end
end

-- The free lock is this one's from now on. Returns the fencing token and the time to live.
local function grant(member)
    local claim, ttl, details = string.match(member, '^(%x+) (%d+) (.*)$')
    local at = now()
    local token = math.max(tonumber(redis.call('GET', COUNTER) or 0) + 1, at)
    redis.call('SET', COUNTER, text(token))
    redis.call('SET', LOCK, claim, 'PX', ttl)
    redis.call('SET', HOLDER, claim .. ' ' .. text(token) .. ' ' .. text(at) .. ' ' .. details, 'PX', ttl)
    return token, tonumber(ttl)
end

-- The lock is free: whoever waits longest and listens has it now, and is told so, unless that is the taker. True when it is for
-- somebody else.
local function pass_on(channel, taker)
    while true do
        local first = redis.call('ZRANGE', WAITERS, 0, 0)[1]
        if not first then
            redis.call('DEL', RUN)
            return false
        end
        local at, details = now(), string.match(first, '^%x+ %d+ (.*)$')
        local run = tonumber(redis.call('GET', RUN) or at)
        if at - run > RUN_MS * 1000 then
            redis.call('SET', RUN, text(at), 'PX', KEEP_MS)
            redis.call('SET', ROOM, '', 'PX', ROOM_MS)
            tell(details, channel, 'look ' .. claim_of(first))
            return true
        end
        if first == taker then return false end
        local token = grant(first)
        local heard = tell(details, channel, 'yours ' .. claim_of(first) .. ' ' .. text(token))
        if heard then
            leave_line(first)
            return true
        end
        redis.call('DEL', LOCK, HOLDER)
        if heard == nil then return false end
        redis.call('ZREM', WAITERS, first)
    end
end

-- Tells a holder that its record was taken away; as `tell`.
local function tell_holder(holder, channel)
    return tell(string.match(holder, '^%x+ %d+ %d+ (.*)$'), channel, 'gone')
end
