-- What `give_back.lua` does when the record is this claim's and nobody waits, as early as that is done in `take_if_free.lua`.
local held = redis.call('GET', LOCK)
local ours = held == claim_of(ARGV[1])
if ours and redis.call('EXISTS', ROOM, WAITERS) == 0 then
    redis.call('DEL', LOCK, HOLDER)
    return 1
end
