-- What `give_back.lua` does when the record is this claim's and nobody waits, as early as that is done in `take_if_free.lua`.
if redis.call('GET', LOCK) == claim_of(ARGV[1]) and redis.call('EXISTS', ROOM, WAITERS) == 0 then
    redis.call('DEL', LOCK, HOLDER)
    return 1
end
