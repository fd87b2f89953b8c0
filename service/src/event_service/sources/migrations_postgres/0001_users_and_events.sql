-- `place` is the order of an event among its user's: an imported list keeps its own, what is added
-- comes last. `seq` is the order in which rows were added, over all.
CREATE TABLE users (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL
);

CREATE TABLE events (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL REFERENCES users (id),
    place BIGINT NOT NULL,
    title TEXT NOT NULL,
    description TEXT NOT NULL
);
CREATE INDEX events_of_user ON events (user_id, place, seq);

-- What was added under a key; the fingerprint tells a repetition from another event.
CREATE TABLE idempotency_keys (
    key TEXT NOT NULL PRIMARY KEY,
    event_id TEXT NOT NULL,
    fingerprint BYTEA NOT NULL,
    added_at DOUBLE PRECISION NOT NULL
);
