-- What the daemon needs beside builds: what it was told, what it made of it, who may do what.

ALTER TABLE builds ADD COLUMN trigger INTEGER;                      -- what started it, if the daemon did
ALTER TABLE builds ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;  -- greater goes first
ALTER TABLE builds ADD COLUMN place INTEGER;                        -- where a person moved it in its project's line
ALTER TABLE builds ADD COLUMN grp TEXT;                             -- concurrency group
ALTER TABLE builds ADD COLUMN awaits TEXT;                          -- JSON: why a person has to agree first
ALTER TABLE builds ADD COLUMN cancel_wanted TEXT;                   -- JSON: reason; enforced until the build has ended
ALTER TABLE builds ADD COLUMN superseded_by INTEGER;                -- the newer build of its group
ALTER TABLE builds ADD COLUMN branch TEXT GENERATED ALWAYS AS (json_extract(request, '$.branch')) VIRTUAL;
ALTER TABLE builds ADD COLUMN event TEXT GENERATED ALWAYS AS (json_extract(request, '$.event')) VIRTUAL;
ALTER TABLE builds ADD COLUMN commit_sha TEXT GENERATED ALWAYS AS (json_extract(request, '$.commit')) VIRTUAL;
CREATE INDEX builds_by_branch ON builds (project, branch, id DESC);
CREATE INDEX builds_by_status ON builds (project, status, id DESC);
CREATE INDEX builds_by_commit ON builds (commit_sha, id DESC);
CREATE INDEX builds_by_trigger ON builds (trigger) WHERE trigger IS NOT NULL;
CREATE INDEX builds_by_group ON builds (project, grp, id) WHERE grp IS NOT NULL AND status IN ('queued', 'running');

-- A stage that is run again may make another version.
DROP INDEX versions_by_stage;
CREATE INDEX versions_by_stage ON versions (build, node);

CREATE TABLE deliveries (                -- webhook calls, as they came
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  source      TEXT NOT NULL,             -- github
  delivery    TEXT NOT NULL,             -- the sender's own id
  event       TEXT NOT NULL,
  headers     TEXT NOT NULL,             -- JSON, without secrets
  body        BLOB NOT NULL,
  received_at INTEGER NOT NULL,
  UNIQUE (source, delivery)
) STRICT;

CREATE TABLE triggers (                  -- one for each project that something happened to, with what came of it
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  project     TEXT NOT NULL,
  source      TEXT NOT NULL,             -- webhook, poll, watch, catch-up, schedule, manual
  delivery    INTEGER REFERENCES deliveries (id),
  subject     TEXT NOT NULL,             -- JSON: what was seen or asked for
  identity    TEXT,                      -- event, ref, commit: the same again is a duplicate
  received_at INTEGER NOT NULL,
  decision    TEXT,                      -- NULL while open; started, skipped, ignored, duplicate, awaiting, cancelled, failed
  reason      TEXT NOT NULL DEFAULT '',
  tries       INTEGER NOT NULL DEFAULT 0,
  next_at     INTEGER NOT NULL,
  decided_at  INTEGER
) STRICT;
CREATE INDEX triggers_open ON triggers (project, id) WHERE decision IS NULL;
CREATE INDEX triggers_by_project ON triggers (project, id DESC);
CREATE INDEX triggers_by_identity ON triggers (project, identity, id DESC) WHERE identity IS NOT NULL;
CREATE INDEX triggers_by_delivery ON triggers (delivery) WHERE delivery IS NOT NULL;

CREATE TABLE heads (                     -- the newest commit of each branch and tag that was acted upon
  project    TEXT NOT NULL,
  ref        TEXT NOT NULL,
  commit_sha TEXT NOT NULL,
  seen_at    INTEGER NOT NULL,
  PRIMARY KEY (project, ref)
) STRICT, WITHOUT ROWID;

CREATE TABLE schedules (                 -- the last slot of each schedule that was acted upon
  project  TEXT NOT NULL,
  pipeline TEXT NOT NULL,
  line     TEXT NOT NULL,                -- cron, time zone, branch
  last     INTEGER NOT NULL,
  PRIMARY KEY (project, pipeline, line)
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  name       TEXT NOT NULL,
  hash       TEXT NOT NULL UNIQUE,       -- SHA-256 of a random token of 256 bits
  scopes     TEXT NOT NULL,              -- JSON: read, trigger, approve, admin
  projects   TEXT,                       -- JSON: names; NULL for all
  made_by    TEXT NOT NULL,
  made_at    INTEGER NOT NULL,
  expires_at INTEGER,
  used_at    INTEGER,
  revoked_at INTEGER
) STRICT;

CREATE TABLE sessions (                  -- browsers that signed in
  hash       TEXT PRIMARY KEY,           -- of the cookie
  csrf       TEXT NOT NULL,
  actor      TEXT NOT NULL,
  scopes     TEXT NOT NULL,
  projects   TEXT,
  token      INTEGER REFERENCES tokens (id),
  made_at    INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_end ON sessions (expires_at);

CREATE TABLE secrets (                   -- values of secrets, sealed with a key that is not in here
  id        INTEGER PRIMARY KEY AUTOINCREMENT,
  name      TEXT NOT NULL,
  project   TEXT NOT NULL DEFAULT '',    -- '' for all
  branches  TEXT NOT NULL,               -- JSON: globs; empty for all
  stages    TEXT NOT NULL,               -- JSON: names; empty for all
  key_id    TEXT NOT NULL,
  nonce     BLOB NOT NULL,
  sealed    BLOB NOT NULL,
  made_by   TEXT NOT NULL,
  made_at   INTEGER NOT NULL,
  UNIQUE (name, project)
) STRICT;

CREATE TABLE audit (
  id     INTEGER PRIMARY KEY AUTOINCREMENT,
  at     INTEGER NOT NULL,
  actor  TEXT NOT NULL,
  action TEXT NOT NULL,
  target TEXT NOT NULL,
  detail TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE outbox (                    -- what others are to be told, until they were
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  build   INTEGER REFERENCES builds (id),
  channel TEXT NOT NULL,                 -- github-status, github-check, github-comment, or a notifier's name
  topic   TEXT NOT NULL,                 -- a newer message of a topic replaces an older one that was not sent
  body    TEXT NOT NULL,                 -- JSON
  made_at INTEGER NOT NULL,
  tries   INTEGER NOT NULL DEFAULT 0,
  next_at INTEGER NOT NULL,
  problem TEXT NOT NULL DEFAULT '',
  done_at INTEGER,
  gave_up INTEGER
) STRICT;
CREATE INDEX outbox_open ON outbox (next_at) WHERE done_at IS NULL AND gave_up IS NULL;
CREATE INDEX outbox_by_build ON outbox (build, id);
CREATE INDEX outbox_by_topic ON outbox (channel, topic, id DESC);

CREATE TABLE idempotency (               -- answers to POSTs that named a key
  key     TEXT PRIMARY KEY,
  request TEXT NOT NULL,                 -- digest of what was asked
  status  INTEGER NOT NULL,
  answer  TEXT NOT NULL,
  made_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
