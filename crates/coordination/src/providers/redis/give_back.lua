-- ARGV: who gives back, channel prefix. Returns 1 when the record was this claim's.
local member, channel = ARGV[1], ARGV[2]
local claim = claim_of(member)
local ours = redis.call('GET', LOCK) == claim
local free = ours
if ours then
    redis.call('DEL', LOCK, HOLDER)
else
    -- The record was taken away: that is known now.
    local holder = redis.call('GET', HOLDER)
    if holder and claim_of(holder) == claim then
        redis.call('DEL', HOLDER)
        free = redis.call('EXISTS', LOCK) == 0
    end
end
if redis.call('EXISTS', ROOM, WAITERS) > 0 then
    leave_line(member)
    if free then pass_on(channel, nil) end
end
return ours and 1 or 0
