"""The four scripts that decide for a cluster. Each runs in Redis as one atomic step.

A circuit is a hash: `state` (closed, open, half_open, isolated), `epoch`, `until` (milliseconds of
Redis' clock at which the cooldown or the canary's lease ends), `holder` of the canary, `successes`
of canaries since it opened, `changed` (milliseconds), `opener` (the node whose failures alone
opened it), `closer` (the node whose canary closed it), `failed` (the node whose canary failed
last). Beside it stands a sorted set of its recent failures, and one sorted set of live nodes.

Only Redis' clock decides. Every decision gets an epoch above all that went before, also above those
that a failover lost: the clock's microseconds are part of it. Epochs are written with `%.0f`,
because Lua's own conversion keeps 14 digits of the 16.

All four answer with circuits as `[epoch, state, milliseconds left, holder]`.
"""

from __future__ import annotations

# A node that has not been heard of for so long is no longer counted.
NODE_TTL_MS = 3_500
# A node whose canary failed lets the others have the next try for so long: it may be the only one
# that cannot reach what the circuit protects.
YIELD_MS = 250

_COMMON = """
local clock = redis.call('TIME')
local micros = clock[1] * 1000000 + clock[2]
local now = math.floor(micros / 1000)
local node = ARGV[1]

local function digits(number)
    return string.format('%.0f', number)
end

local function load(key)
    local fields = redis.call('HMGET', key, 'epoch', 'state', 'until', 'holder', 'successes',
        'changed', 'opener', 'closer', 'failed')
    return {
        key = key,
        epoch = tonumber(fields[1] or '0'),
        state = fields[2] or 'closed',
        ends = tonumber(fields[3] or '0'),
        holder = fields[4] or '',
        successes = tonumber(fields[5] or '0'),
        changed = tonumber(fields[6] or '0'),
        opener = fields[7] or '',
        closer = fields[8] or '',
        failed = fields[9] or '',
    }
end

local function view(circuit)
    local left = math.max(0, circuit.ends - now)
    return {digits(circuit.epoch), circuit.state, digits(left), circuit.holder}
end

local function save(circuit)
    redis.call('HSET', circuit.key, 'epoch', digits(circuit.epoch), 'state', circuit.state,
        'until', digits(circuit.ends), 'holder', circuit.holder,
        'successes', digits(circuit.successes), 'changed', digits(circuit.changed),
        'opener', circuit.opener, 'closer', circuit.closer, 'failed', circuit.failed)
end

-- Everybody hears of it, the caller included.
local function decide(circuit, seen, state, lasts, holder, channel, operation)
    circuit.epoch = math.max(circuit.epoch + 1, seen + 1, micros)
    circuit.state = state
    circuit.ends = now + lasts
    circuit.holder = holder
    circuit.changed = now
    save(circuit)
    redis.call('PUBLISH', channel, cjson.encode({operation, view(circuit), node}))
end
"""

# KEYS: circuit, failures, nodes. ARGV: node, channel, operation, epoch seen, threshold (0: none),
# window in ms, quorum, cooldown in ms, vote (1: the node's own rule tripped), then for each failure
# its number and its age in ms.
REPORT = (
    _COMMON
    + """
local channel, operation, seen = ARGV[2], ARGV[3], tonumber(ARGV[4])
local threshold, window, quorum = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local cooldown, vote = tonumber(ARGV[8]), ARGV[9] == '1'
local circuit = load(KEYS[1])
if circuit.state ~= 'closed' or seen > circuit.epoch then
    -- Decided already, or what is stored is older than what the caller knows: LOOK mends that.
    return view(circuit)
end
for i = 10, #ARGV, 2 do
    local at = now - tonumber(ARGV[i + 1])
    -- What failed before the circuit closed is of an earlier outage.
    if at >= circuit.changed then
        redis.call('ZADD', KEYS[2], digits(at), 'f:' .. ARGV[i] .. ':' .. node)
    end
end
if vote then
    redis.call('ZADD', KEYS[2], digits(now), 'v:0:' .. node)
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. digits(now - window))
redis.call('PEXPIRE', KEYS[2], digits(window + 1000))
local failures, votes, witnesses, nodes = 0, 0, 0, {}
for _, member in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    local kind, who = string.match(member, '^(.):[^:]*:(.*)$')
    if kind == 'f' then failures = failures + 1 else votes = votes + 1 end
    if not nodes[who] then
        nodes[who] = true
        witnesses = witnesses + 1
    end
end
local tripped = (threshold > 0 and failures >= threshold) or votes >= quorum
if not tripped or witnesses < quorum then
    return view(circuit)
end
local alone = witnesses == 1
if alone and nodes[circuit.opener] and circuit.closer ~= circuit.opener
    and now - circuit.changed < window then
    -- It opened this circuit before, and another node's canary found nothing wrong.
    return view(circuit)
end
circuit.opener = ''
if alone then circuit.opener = next(nodes) end
circuit.closer, circuit.failed, circuit.successes = '', '', 0
redis.call('DEL', KEYS[2])
decide(circuit, seen, 'open', cooldown, '', channel, operation)
return view(circuit)
"""
)

# KEYS: circuit, failures, nodes. ARGV: node, channel, operation, epoch seen, lease in ms.
# Answers with `1` before the circuit if the caller may send its canary: the epoch is its fence.
CLAIM = (
    _COMMON
    + f"""
local yield_ms, ttl = {YIELD_MS}, {NODE_TTL_MS}
"""
    + """
local channel, operation, seen, lease = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local circuit = load(KEYS[1])
if seen > circuit.epoch then
    -- What the caller waited for was lost. It has waited.
    circuit.state, circuit.ends, circuit.holder = 'open', now, ''
end
if circuit.state ~= 'open' and circuit.state ~= 'half_open' then
    return {'0', unpack(view(circuit))}
end
local waits_until = circuit.ends
if circuit.failed == node
    and redis.call('ZCOUNT', KEYS[3], digits(now - ttl), '+inf') > 1 then
    waits_until = waits_until + yield_ms
end
if now < waits_until then
    local refused = view(circuit)
    refused[3] = digits(waits_until - now)
    return {'0', unpack(refused)}
end
decide(circuit, seen, 'half_open', lease, node, channel, operation)
return {'1', unpack(view(circuit))}
"""
)

# KEYS: circuit, failures, nodes. ARGV: node, channel, operation, fence, verdict (success, failure,
# neutral), cooldown in ms, successes that close it.
# Answers with `1` before the circuit if the verdict counted.
SETTLE = (
    _COMMON
    + """
local channel, operation, fence, verdict = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local cooldown, needed = tonumber(ARGV[6]), tonumber(ARGV[7])
local circuit = load(KEYS[1])
local holds = circuit.epoch == fence and circuit.holder == node and circuit.state == 'half_open'
-- A failover may have lost the grant. Nobody has decided since, or the epoch would be higher.
local lost = circuit.epoch < fence
if not holds and not lost then
    return {'0', unpack(view(circuit))}
end
if verdict == 'failure' then
    circuit.successes, circuit.failed = 0, node
    decide(circuit, fence, 'open', cooldown, '', channel, operation)
elseif verdict == 'success' and circuit.successes + 1 >= needed then
    circuit.successes, circuit.failed, circuit.closer = 0, '', node
    redis.call('DEL', KEYS[2])
    decide(circuit, fence, 'closed', 0, '', channel, operation)
else
    if verdict == 'success' then
        circuit.successes, circuit.failed = circuit.successes + 1, ''
    end
    -- Half-open without a holder: anybody may claim it at once.
    decide(circuit, fence, 'half_open', 0, '', channel, operation)
end
return {'1', unpack(view(circuit))}
"""
)

# KEYS: nodes, then the circuits. ARGV: node, channel, then for each circuit: operation, epoch seen,
# state seen, ms left, order (1: an operator's, above all that is stored).
# Answers with how many nodes are alive, then the circuits.
LOOK = (
    _COMMON
    + f"""
local ttl = {NODE_TTL_MS}
"""
    + """
local channel = ARGV[2]
redis.call('ZADD', KEYS[1], digits(now), node)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. digits(now - ttl))
local answer = {redis.call('ZCARD', KEYS[1])}
for i = 2, #KEYS do
    local at = 3 + (i - 2) * 5
    local operation, seen, state = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
    local left, order = tonumber(ARGV[at + 3]), ARGV[at + 4]
    local circuit = load(KEYS[i])
    if order == '1' or order == '2' and seen >= circuit.epoch then
        circuit.opener, circuit.closer, circuit.failed, circuit.successes = '', '', '', 0
        decide(circuit, seen, state, left, '', channel, operation)
    elseif seen > circuit.epoch then
        -- A failover lost it. A lost canary's lease is waited out like a cooldown.
        if state == 'half_open' then state = 'open' end
        circuit.epoch, circuit.state, circuit.ends = seen, state, now + left
        circuit.holder, circuit.changed, circuit.successes = '', now, 0
        circuit.opener, circuit.closer, circuit.failed = '', '', ''
        save(circuit)
        redis.call('PUBLISH', channel, cjson.encode({operation, view(circuit), node}))
    end
    answer[i] = view(circuit)
end
return answer
"""
)
