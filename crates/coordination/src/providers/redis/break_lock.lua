-- ARGV: channel prefix. Returns 1 when there was a record. A holder that listens is told, and its details go when it has answered;
-- until then nobody of us has the lock (see take.lua).
local channel = ARGV[1]
local there = redis.call('DEL', LOCK)
local holder = redis.call('GET', HOLDER)
local told = holder and tell_holder(holder, channel)
if holder and not told then redis.call('DEL', HOLDER) end
if there == 1 and not told then pass_on(channel, nil) end
return there
