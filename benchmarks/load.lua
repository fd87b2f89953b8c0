-- What wrk asks for, and the figures it found as one line of JSON.
-- Arguments after `--`:
--   path PATH                one path, again and again
--   distinct PREFIX EVENTS   another user each time, each with so many events
--   hot USERS EVENTS         users drawn from a Zipf distribution (exponent 1)
--   known USERS EVENTS       that many users in turn, each with so many events
--   post PATH BODY           one new event, again and again
--   post-async PATH BODY     new events of 100 users in turn, with `Prefer: respond-async`

local next_request

local function get(path)
  return wrk.format("GET", path)
end

local function by_user(key, events)
  return get("/api/getEventsByUserId/" .. key .. "-" .. events)
end

local function distinct(prefix, events)
  local before, after = by_user(prefix .. "KEY", events):match("^(.*)KEY(.*)$")
  local count = 0
  return function()
    count = count + 1
    return before .. count .. after
  end
end

local function hot(users, events)
  local total, sums = 0, {}
  for rank = 1, users do
    total = total + 1 / rank
    sums[rank] = total
  end
  math.randomseed(1)
  local draws = {}
  for draw = 1, 65536 do
    local mark, low, high = math.random() * total, 1, users
    while low < high do
      local middle = math.floor((low + high) / 2)
      if sums[middle] < mark then low = middle + 1 else high = middle end
    end
    draws[draw] = by_user("hot" .. low, events)
  end
  local count = 0
  return function()
    count = count % #draws + 1
    return draws[count]
  end
end

local function known(users, events)
  local requests, count = {}, 0
  for user = 1, users do
    requests[user] = by_user("known" .. (user - 1), events)
  end
  return function()
    count = count % #requests + 1
    return requests[count]
  end
end

local function always(one)
  return function() return one end
end

local function in_turn(path, headers, body)
  local requests, count = {}, 0
  for user = 1, 100 do
    local its = body:gsub('"userId": *"[^"]*"', '"userId":"' .. user .. '"')
    requests[user] = wrk.format("POST", path, headers, its)
  end
  return function()
    count = count % #requests + 1
    return requests[count]
  end
end

function init(args)
  local kind = args[1]
  if kind == "path" then
    next_request = always(get(args[2]))
  elseif kind == "distinct" then
    next_request = distinct(args[2], args[3])
  elseif kind == "hot" then
    next_request = hot(tonumber(args[2]), args[3])
  elseif kind == "known" then
    next_request = known(tonumber(args[2]), args[3])
  else
    local headers = { ["Content-Type"] = "application/json" }
    if kind == "post-async" then
      headers["Prefer"] = "respond-async"
      next_request = in_turn(args[2], headers, args[3])
    else
      next_request = always(wrk.format("POST", args[2], headers, args[3]))
    end
  end
end

function request()
  return next_request()
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%f,"refused":%d,"broken":%d,"p50_ms":%f,"p99_ms":%f}\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
