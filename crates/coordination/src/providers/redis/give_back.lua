-- ARGV: who gives back, channel prefix. Returns 1 when the record was this claim's.
local member, channel = ARGV[1], ARGV[2]
if ours then
    -- Whoever has the lock does not stand in line.
    pass_on(channel, nil)
    return 1
end
-- It gives up waiting; or the record was taken away, which is known now.
local holder = redis.call('GET', HOLDER)
local was_ours = holder and claim_of(holder) == claim_of(member)
if was_ours then redis.call('DEL', HOLDER) end
leave_line(member)
if was_ours and not held then pass_on(channel, nil) end
return 0
