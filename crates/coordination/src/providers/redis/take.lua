-- ARGV: who takes, channel prefix, whether it waits, for how many microseconds it has waited.
-- Returns {1, token, ms left} when it has the lock; {0, ms to look again, highest token so far} when it has not.
local member, channel = ARGV[1], ARGV[2]
local claim = claim_of(member)

local function later(ms)
    return {0, math.max(ms, 1), tonumber(redis.call('GET', COUNTER) or 0)}
end

local function line_up()
    if ARGV[3] == '1' then
        redis.call('ZADD', WAITERS, 'NX', string.format('%.0f', now() - ARGV[4]), member)
        redis.call('PEXPIRE', WAITERS, KEEP_MS)
        if redis.call('SET', RUN, now(), 'PX', KEEP_MS, 'NX') == false then
            redis.call('PEXPIRE', RUN, KEEP_MS)
        end
    end
end

local held = redis.call('GET', LOCK)
if held then
    local left = redis.call('PTTL', LOCK)
    local holder = redis.call('GET', HOLDER)
    local known = holder and claim_of(holder) == held
    if held == claim and known then
        return {1, tonumber(string.match(holder, ' (%d+) ')), left}
    end
    line_up()
    if known and left >= 0 then return later(left) end
    -- A Python peer: it wakes nobody, and the turn was its own.
    redis.call('SET', RUN, now(), 'PX', KEEP_MS, 'XX')
    return later(left >= 0 and math.min(left, PEER_MS) or PEER_MS)
end

if redis.call('EXISTS', HOLDER, ROOM, WAITERS) > 0 then
    line_up()
    -- Details without a record: it was taken away from a holder who does not know it yet. It is told, and nobody of us has the lock
    -- before it has answered, or its time is over.
    local holder = redis.call('GET', HOLDER)
    if holder then
        tell_holder(holder, channel)
        return later(math.min(redis.call('PTTL', HOLDER), PEER_MS))
    end
    if redis.call('EXISTS', ROOM) == 1 then return later(redis.call('PTTL', ROOM)) end
    if pass_on(channel, member) then return later(PEER_MS) end
    leave_line(member)
end

local token, ttl = grant(member, now())
return {1, tonumber(token), ttl}
