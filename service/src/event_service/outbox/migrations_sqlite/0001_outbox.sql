-- Times are seconds since 1970. A lane is a user: its events are delivered one after another.
CREATE TABLE lane (
    user_id TEXT NOT NULL PRIMARY KEY,
    tail INTEGER NOT NULL,      -- counts what was accepted
    next_at REAL,               -- when it is to be worked on; NULL: idle
    owner TEXT,                 -- who works on it; NULL: nobody, and nothing is under way
    lease_until REAL NOT NULL,
    token INTEGER NOT NULL      -- the fence: every claim has a higher one
) STRICT, WITHOUT ROWID;
CREATE INDEX lane_due ON lane (next_at) WHERE next_at IS NOT NULL;

CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    idem_key TEXT UNIQUE,
    fingerprint BLOB NOT NULL,
    client TEXT NOT NULL,       -- who may ask for it; '': anybody
    user_id TEXT NOT NULL,
    body BLOB NOT NULL,
    upstream_key TEXT NOT NULL,
    request_id TEXT NOT NULL,
    traceparent TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0, -- attempts that failed while the circuit was closed
    accepted_at REAL NOT NULL,
    give_up_at REAL NOT NULL,
    finished_at REAL,
    event_id TEXT,
    last_error BLOB
) STRICT;
CREATE INDEX outbox_queued ON outbox (user_id, seq) WHERE state = 'queued';
CREATE INDEX outbox_age ON outbox (accepted_at) WHERE state = 'queued';
CREATE INDEX outbox_finished ON outbox (state, finished_at) WHERE state <> 'queued';
