"""The scripts by which a session and its user's index are written at once. The format is told in `storage.py`.

No time of the caller's clock is compared with the server's: a record lives for `left` milliseconds, what is left of it
by the caller's clock (0 or less: it is over at once), and the users' sets go by the server's clock alone.
"""

from hashlib import sha1

# What a script answers; else nil (gone), REPLACE: the stored value (conflict), TOUCH: whose index is to be written.
SAVED = 1
NO_SET = "NOSET what is under the user's key is no sorted set"  # else it would read as if the session's were wrong

# List a session under its user, and forget those that have expired. The hour to spare is for what the clocks of servers
# may differ by after a fail-over, and it halves the writes: the score has to rise only when the expiry has passed it.
LIST = f"""
local function clock()
    local now = redis.call('TIME')
    return now[1] * 1000 + math.floor(now[2] / 1000)
end
local function ending(now, left) return tonumber(left) > 0 and now + left or 1 end
local function hour_of(moment) return math.ceil(moment / 3600000) end
local function list(user, now, hour, id)
    local added = redis.pcall('ZADD', user, 'GT', hour, id)
    if type(added) == 'table' then
        if string.find(added.err, 'WRONGTYPE') then error("{NO_SET}") end
        redis.call('ZADD', user, 'GT', hour, id)
    end
    local last = tonumber(redis.call('ZREVRANGE', user, 0, 0, 'WITHSCORES')[2])  -- of anybody's member
    redis.call('PEXPIREAT', user, math.min(last, 70389528) * 3600000)  -- the year 10000
    redis.call('ZREMRANGEBYSCORE', user, '-inf', now / 3600000)
    return added
end
local function is_live(head, time)  -- and ours: anything may be stored there
    if #head < 38 or string.sub(head, 1, 8) == string.rep(string.char(255), 8) then return false end
    local expires, updated, created = struct.unpack('>i8i8i8', head, 9)
    local last = 253402300800000  -- the year 10000
    return expires > time and expires < last and updated >= 0 and updated < last and created >= 0 and created < last
end
local function indexed_in(value, hour)
    return string.sub(value, 1, 32) .. struct.pack('>I4', hour) .. string.sub(value, 37)
end
"""
INDEX = f"""{LIST}
local hour = redis.call('GETRANGE', KEYS[2], 32, 35)
return #hour == 4 and list(KEYS[1], clock(), (struct.unpack('>I4', hour)), ARGV[1]) or 0
"""
# Only what lists a session in the same script may make it, so what is not there now is listed again if it comes.
FORGET = """
local forgotten = 0
for number, id in ipairs(ARGV) do
    if redis.call('EXISTS', KEYS[number + 1]) == 0 then
        forgotten = forgotten + redis.call('ZREM', KEYS[1], id)
    end
end
return forgotten
"""
INSERT = f"""{LIST}
local left, value, id = unpack(ARGV)
local now = clock()
local at = ending(now, left)
local hour = hour_of(at) + 1
list(KEYS[2], now, hour, id)
return redis.call('SET', KEYS[1], indexed_in(value, hour), 'NX', 'PXAT', at) and 1
"""
REPLACE = f"""{LIST}
local left, value, id, time, version = unpack(ARGV)
local user = string.sub(value, 37, 38 + struct.unpack('>I2', value, 37))
local head = redis.call('GETRANGE', KEYS[1], 0, 35 + #user)
if not is_live(head, tonumber(time)) then return nil end
if string.sub(head, 1, 8) ~= version then return redis.call('GET', KEYS[1]) end
local now, hour = clock(), (struct.unpack('>I4', head, 33))
local at = ending(now, left)
if KEYS[2] and (string.sub(head, 37) ~= user or hour < hour_of(at)) then
    hour = hour_of(at) + 1
    list(KEYS[2], now, hour, id)
end
redis.call('SET', KEYS[1], indexed_in(value, KEYS[2] and hour or 0), 'PXAT', at)
return 1
"""
TOUCH = f"""{LIST}
local left, times, time, user, id = unpack(ARGV)
local head = redis.call('GETRANGE', KEYS[1], 0, 37)
if not is_live(head, tonumber(time)) then return nil end
local now, length = clock(), (struct.unpack('>I2', head, 37))
if length > 0 and redis.call('GETRANGE', KEYS[1], 37 + length, 37 + length) == '' then return nil end
local at = ending(now, left)
if length > 0 and struct.unpack('>I4', head, 33) < hour_of(at) then
    local stored = redis.call('GETRANGE', KEYS[1], 38, 37 + length)
    if stored ~= user then return stored end
    list(KEYS[2], now, hour_of(at) + 1, id)
    redis.call('SETRANGE', KEYS[1], 32, struct.pack('>I4', hour_of(at) + 1))
end
redis.call('SETRANGE', KEYS[1], 8, times)
redis.call('PEXPIREAT', KEYS[1], at)
return 1
"""
# In a cluster a session and its user's set lie in different slots, which no script may touch both. So whoever writes
# lists the session first, and is told the hour; what is on the session then says whether that hour will do.
#   LIST_ALONE      the hour, and the server's now in milliseconds
#   REPLACE_ALONE   {1, the hour of its listing} (saved), {0, hour} (to be listed for that hour first); or as REPLACE
#   TOUCH_ALONE     {1, hour}, {0, hour, user}, or nil
LIST_ALONE = f"""{LIST}
local left, id, least = unpack(ARGV)
local now = clock()
local hour = math.max(hour_of(ending(now, left)) + 1, tonumber(least))
list(KEYS[1], now, hour, id)
return {{hour, now}}
"""
INDEX_ALONE = f"""{LIST}
return list(KEYS[1], clock(), ARGV[1], ARGV[2])
"""
REPLACE_ALONE = f"""{LIST}
local left, value, time, version, listed = unpack(ARGV)
local user = string.sub(value, 37, 38 + struct.unpack('>I2', value, 37))
local head = redis.call('GETRANGE', KEYS[1], 0, 35 + #user)
if not is_live(head, tonumber(time)) then return nil end
if string.sub(head, 1, 8) ~= version then return redis.call('GET', KEYS[1]) end
local at, hour = ending(clock(), left), 0
if #user > 2 then
    hour = tonumber(listed)
    if string.sub(head, 37) == user then hour = math.max(hour, (struct.unpack('>I4', head, 33))) end
    if hour < hour_of(at) then return {{0, hour_of(at) + 1}} end
end
redis.call('SET', KEYS[1], indexed_in(value, hour), 'PXAT', at)
return {{1, hour}}
"""
TOUCH_ALONE = f"""{LIST}
local left, times, time, user, listed = unpack(ARGV)
local head = redis.call('GETRANGE', KEYS[1], 0, 37)
if not is_live(head, tonumber(time)) then return nil end
local length, hour = struct.unpack('>I2', head, 37), (struct.unpack('>I4', head, 33))
if length > 0 and redis.call('GETRANGE', KEYS[1], 37 + length, 37 + length) == '' then return nil end
local at = ending(clock(), left)
if length > 0 and hour < hour_of(at) then
    local stored = redis.call('GETRANGE', KEYS[1], 38, 37 + length)
    if stored ~= user or tonumber(listed) < hour_of(at) then return {{0, hour_of(at) + 1, stored}} end
    hour = tonumber(listed)
    redis.call('SETRANGE', KEYS[1], 32, struct.pack('>I4', hour))
end
redis.call('SETRANGE', KEYS[1], 8, times)
redis.call('PEXPIREAT', KEYS[1], at)
return {{1, hour}}
"""
SENT = INSERT, REPLACE, TOUCH, LIST_ALONE, REPLACE_ALONE, TOUCH_ALONE
SHA = {script: sha1(script.encode(), usedforsecurity=False).hexdigest() for script in SENT}
