-- KEYS: record and details of each lock. ARGV: time to live in ms, then the claim of each. Returns 1 for each that is still the
-- claim's, 0 for the others.
local extended = {}
for at = 2, #ARGV do
    local lock, holder = KEYS[2 * at - 3], KEYS[2 * at - 2]
    if redis.call('GET', lock) == ARGV[at] then
        redis.call('PEXPIRE', lock, ARGV[1])
        redis.call('PEXPIRE', holder, ARGV[1])
        extended[#extended + 1] = 1
    else
        extended[#extended + 1] = 0
    end
end
return extended
