-- ARGV: claim, time to live in ms, details, channel prefix, whether it waits, for how many microseconds it has waited.
-- Returns {1, token, ms left} when it has the lock, {0, ms to look again} when it has not.
local claim, ttl, details, channel = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local member = claim .. ' ' .. details

local function line_up()
    if ARGV[5] == '1' then
        redis.call('ZADD', WAITERS, 'NX', text(now() - ARGV[6]), member)
        redis.call('PEXPIRE', WAITERS, KEEP_MS)
        if redis.call('SET', RUN, text(now()), 'PX', KEEP_MS, 'NX') == false then
            redis.call('PEXPIRE', RUN, KEEP_MS)
        end
    end
end

local held = redis.call('GET', LOCK)
if held then
    local left = redis.call('PTTL', LOCK)
    local holder = redis.call('GET', HOLDER)
    local known = holder and string.sub(holder, 1, 32) == held
    if held == claim and known then
        return {1, tonumber(string.match(holder, ' (%d+) ')), left}
    end
    line_up()
    if known and left >= 0 then return {0, left} end
    -- A Python peer: it wakes nobody, and the turn was its own.
    redis.call('SET', RUN, text(now()), 'PX', KEEP_MS, 'XX')
    return {0, left >= 0 and math.min(left, PEER_MS) or PEER_MS}
end

if contended() then
    local turn = redis.call('GET', TURN)
    if not turn then
        line_up()
        turn = pass_on(channel, claim)
    end
    if turn and turn ~= claim then
        line_up()
        return {0, math.max(redis.call('PTTL', TURN), 1)}
    end
    redis.call('DEL', TURN)
    leave_line(member)
end

local at = now()
local token = math.max(tonumber(redis.call('GET', COUNTER) or 0) + 1, at)
redis.call('SET', COUNTER, text(token))
redis.call('SET', LOCK, claim, 'PX', ttl)
redis.call('SET', HOLDER, claim .. ' ' .. text(token) .. ' ' .. text(at) .. ' ' .. details, 'PX', ttl)
return {1, token, ttl}
