-- `place` is the order of an event among its user's: an imported list keeps its own, what is added
-- comes last. `seq` is the order in which rows were added, over all.
CREATE TABLE users (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL
) STRICT;

CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL REFERENCES users (id),
    place INTEGER NOT NULL,
    title TEXT NOT NULL,
    description TEXT NOT NULL
) STRICT;
CREATE INDEX events_of_user ON events (user_id, place, seq);

-- What was added under a key; the fingerprint tells a repetition from another event.
CREATE TABLE idempotency_keys (
    key TEXT NOT NULL PRIMARY KEY,
    event_id TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    added_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
