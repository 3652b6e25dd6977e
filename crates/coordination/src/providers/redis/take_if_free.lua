-- What `take.lua` does when nobody has the lock or waits for it. It stands before `line.lua`, since to make the functions there is
-- as much work for the server as several commands.
if redis.call('EXISTS', LOCK, HOLDER, ROOM, WAITERS) == 0 then
    local token, ttl = grant(ARGV[1], now())
    return {1, tonumber(token), ttl}
end
