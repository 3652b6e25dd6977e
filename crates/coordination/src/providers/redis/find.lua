-- ARGV: claim. Returns {token, ms left} when the record is this claim's, {} when it is not.
if redis.call('GET', LOCK) ~= ARGV[1] then return {} end
local holder = redis.call('GET', HOLDER) or ''
return {tonumber(string.match(holder, ' (%d+) ') or 0), redis.call('PTTL', LOCK)}
