-- One row of each: what a data folder is, what ran, what it made, what serves.

CREATE TABLE meta (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE builds (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  project       TEXT NOT NULL,
  pipeline      TEXT NOT NULL,
  request       TEXT NOT NULL,           -- JSON: everything that does not change (pipeline text, source, params, facts)
  status        TEXT NOT NULL,           -- queued, running, passed, failed, cancelled
  status_json   TEXT NOT NULL,
  cancel        TEXT,                    -- most severe reason asked for
  created_at    INTEGER NOT NULL,        -- microseconds since the epoch, as every *_at
  started_at    INTEGER,
  ended_at      INTEGER
) STRICT;
CREATE INDEX builds_by_project ON builds (project, id DESC);
CREATE INDEX builds_open ON builds (id) WHERE status IN ('queued', 'running');

CREATE TABLE events (
  seq      INTEGER PRIMARY KEY AUTOINCREMENT,
  build    INTEGER NOT NULL REFERENCES builds (id),
  at       INTEGER NOT NULL,
  body     TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_build ON events (build, seq);

CREATE TABLE stages (
  build       INTEGER NOT NULL REFERENCES builds (id),
  node        TEXT NOT NULL,
  position    INTEGER NOT NULL,          -- in the plan
  kind        TEXT NOT NULL,
  status      TEXT NOT NULL,
  status_json TEXT NOT NULL,
  PRIMARY KEY (build, node)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempts (
  build       INTEGER NOT NULL REFERENCES builds (id),
  node        TEXT NOT NULL,
  attempt     INTEGER NOT NULL,
  runner      TEXT NOT NULL,
  nonce       TEXT NOT NULL,
  started_at  INTEGER NOT NULL,
  launched_at INTEGER,
  ended_at    INTEGER,
  outcome     TEXT,                      -- JSON
  steps       TEXT,                      -- JSON: [{name, started_at, ended_at, code}]
  reports     TEXT,                      -- JSON: {name: report}
  why         TEXT NOT NULL DEFAULT '',  -- why it was not reused
  PRIMARY KEY (build, node, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE results (                   -- of stages that ended well: what others and later builds take
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  build      INTEGER NOT NULL REFERENCES builds (id),
  node       TEXT NOT NULL,
  attempt    INTEGER NOT NULL,
  project    TEXT NOT NULL,
  pipeline   TEXT NOT NULL,
  key        TEXT NOT NULL,
  parts      TEXT NOT NULL,              -- JSON: what the key was made of
  outputs    TEXT NOT NULL,              -- digest of the manifest
  metrics    TEXT NOT NULL,              -- JSON: {name: number}
  version    INTEGER,                    -- of the model that a training registered
  made_at    INTEGER NOT NULL,
  made_by    INTEGER NOT NULL,           -- the build that ran it; another one for a reused result
  UNIQUE (build, node)
) STRICT;
CREATE INDEX results_by_key ON results (project, pipeline, node, key, id DESC);
CREATE INDEX results_latest ON results (project, pipeline, node, id DESC);

CREATE TABLE versions (
  model       TEXT NOT NULL,
  version     INTEGER NOT NULL,
  build       INTEGER NOT NULL REFERENCES builds (id),
  node        TEXT NOT NULL,
  artifact    TEXT NOT NULL,             -- digest of the model's own files
  outputs     TEXT NOT NULL,             -- digest of the whole manifest
  metrics     TEXT NOT NULL,             -- JSON: {name: number}
  lineage     TEXT NOT NULL,             -- JSON
  made_at     INTEGER NOT NULL,
  PRIMARY KEY (model, version)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX versions_by_stage ON versions (build, node);

CREATE TABLE aliases (                   -- champion; candidate is the newest version
  model    TEXT NOT NULL,
  alias    TEXT NOT NULL,
  version  INTEGER NOT NULL,
  since    INTEGER NOT NULL,
  PRIMARY KEY (model, alias)
) STRICT, WITHOUT ROWID;

CREATE TABLE promotions (                -- every decision, also those that changed nothing
  id        INTEGER PRIMARY KEY AUTOINCREMENT,
  model     TEXT NOT NULL,
  candidate INTEGER NOT NULL,
  champion  INTEGER,                     -- the one before
  verdict   TEXT NOT NULL,               -- promoted, rejected, inconclusive, unchanged, error, rolled-back
  actor     TEXT NOT NULL,
  build     INTEGER,
  node      TEXT,
  evidence  TEXT NOT NULL,               -- JSON: the whole judgement
  at        INTEGER NOT NULL
) STRICT;
CREATE INDEX promotions_by_model ON promotions (model, id DESC);
CREATE INDEX promotions_by_stage ON promotions (build, node);

CREATE TABLE deployments (
  id        INTEGER PRIMARY KEY AUTOINCREMENT,
  model     TEXT NOT NULL,
  version   INTEGER NOT NULL,
  unit      TEXT NOT NULL,
  runner    TEXT NOT NULL,
  port      INTEGER NOT NULL,
  spec      TEXT NOT NULL,               -- JSON: how to start it again
  status    TEXT NOT NULL,               -- starting, live, stopped, failed
  detail    TEXT NOT NULL DEFAULT '',
  since     INTEGER NOT NULL
) STRICT;
CREATE INDEX deployments_by_model ON deployments (model, id DESC);
CREATE INDEX deployments_open ON deployments (id) WHERE status IN ('starting', 'live');
