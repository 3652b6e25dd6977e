-- ARGV: claim, details, channel prefix. Returns 1 when the record was this claim's.
local claim, channel = ARGV[1], ARGV[3]
local ours = redis.call('GET', LOCK) == claim
if ours then redis.call('DEL', LOCK, HOLDER) end
if contended() then
    local turn = redis.call('GET', TURN)
    if turn == claim then redis.call('DEL', TURN) end
    leave_line(claim .. ' ' .. ARGV[2])
    if ours or turn == claim and redis.call('EXISTS', LOCK) == 0 then
        pass_on(channel, nil)
    end
end
return ours and 1 or 0
