-- Before the scripts that look after those who wait.

-- Milliseconds. After RUN_MS from hand to hand the lock is left alone for ROOM_MS, so that a Python peer, which looks every PEER_MS,
-- finds it free; what waiters leave behind goes after KEEP_MS.
local RUN_MS, ROOM_MS, KEEP_MS, PEER_MS = 3000, 150, 10000, 100

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

-- Whoever waits longest and listens has the lock now, and is told so, unless that is the taker; nobody has it otherwise. True when it
-- is for somebody else.
local function pass_on(channel, taker)
    while true do
        local first, second = unpack(redis.call('ZRANGE', WAITERS, 0, 1))
        if not first then
            redis.call('DEL', LOCK, HOLDER, RUN)
            return false
        end
        local at, details = now(), string.match(first, '^%x+ %d+ (.*)$')
        local run = tonumber(redis.call('GET', RUN) or at)
        if at - run > RUN_MS * 1000 then
            redis.call('DEL', LOCK, HOLDER)
            redis.call('SET', RUN, at, 'PX', KEEP_MS)
            redis.call('SET', ROOM, '', 'PX', ROOM_MS)
            tell(details, channel, 'look ' .. claim_of(first))
            return true
        end
        if first == taker then return false end
        local token = grant(first, at)
        local heard = tell(details, channel, 'yours ' .. claim_of(first) .. ' ' .. token)
        if heard then
            redis.call('ZREM', WAITERS, first)
            if not second then redis.call('DEL', RUN) end
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
