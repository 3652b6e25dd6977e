-- Before each script. Keys of one lock: the record (tooz' own key), its details, who waits, whose turn it is, since when the
-- lock goes from hand to hand among Scoria's instances; then the counter of fencing tokens of the whole namespace.
if redis.replicate_commands then redis.replicate_commands() end
local LOCK, HOLDER, WAITERS, TURN, RUN, COUNTER = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

-- Milliseconds. A waiter that is woken has TURN_MS to come; after RUN_MS from hand to hand the lock is left alone for ROOM_MS, so
-- that a Python peer, which looks every 100 ms, finds it free; what waiters leave behind goes after KEEP_MS.
local TURN_MS, RUN_MS, ROOM_MS, KEEP_MS, PEER_MS = 300, 3000, 150, 10000, 100

local function now()
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
end

local function text(number)
    return string.format('%.0f', number)
end

-- Tells the instance of a waiter; true when it listens, nil when nobody may be told anything here.
local function wake(waiter, channel)
    local instance = cjson.decode(string.sub(waiter, 34)).instance
    local heard = redis.pcall('PUBLISH', channel .. instance, string.sub(waiter, 1, 32))
    if type(heard) ~= 'number' then return nil end
    return heard > 0
end

-- A waiter waits no longer.
local function leave_line(waiter)
    redis.call('ZREM', WAITERS, waiter)
    if redis.call('EXISTS', WAITERS) == 0 then redis.call('DEL', RUN) end
end

-- Whether anybody stands in line or has been given the turn.
local function contended()
    return redis.call('EXISTS', TURN, WAITERS) > 0
end

-- The lock is free: whoever waits longest and is still there has TURN_MS to take it. Returns whose turn it is, if anybody's; ''
-- is the polling peers'.
local function pass_on(channel, taker)
    while true do
        local first = redis.call('ZRANGE', WAITERS, 0, 0)[1]
        if not first then
            redis.call('DEL', RUN)
            return nil
        end
        local at = now()
        local run = tonumber(redis.call('GET', RUN) or at)
        if at - run > RUN_MS * 1000 then
            redis.call('SET', RUN, text(at), 'PX', KEEP_MS)
            redis.call('SET', TURN, '', 'PX', ROOM_MS)
            wake(first, channel)
            return ''
        end
        local id = string.sub(first, 1, 32)
        if id == taker then return id end
        local heard = wake(first, channel)
        if heard == nil then return nil end
        redis.call('ZREM', WAITERS, first)
        if heard then
            redis.call('SET', TURN, id, 'PX', TURN_MS)
            return id
        end
    end
end
