-- ARGV: channel prefix. Returns 1 when there was a record.
local there = redis.call('DEL', LOCK)
redis.call('DEL', HOLDER)
if there == 1 then pass_on(ARGV[1], nil) end
return there
