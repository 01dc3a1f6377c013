-- What live progress needs: how often requests failed, samples of how far uploads were, and which log of events this is.

ALTER TABLE upload ADD COLUMN errors INTEGER NOT NULL DEFAULT 0;

ALTER TABLE upload ADD COLUMN retries INTEGER NOT NULL DEFAULT 0;

ALTER TABLE event ADD COLUMN owner TEXT;

ALTER TABLE event ADD COLUMN project TEXT;

-- One row. Events up to the number `floor` were trimmed away.
CREATE TABLE log (
    epoch TEXT NOT NULL,
    floor INTEGER NOT NULL
) STRICT;

INSERT INTO log VALUES (lower(hex(randomblob(8))), 0);

CREATE TABLE sample (
    upload INTEGER NOT NULL,
    at REAL NOT NULL,
    state TEXT NOT NULL,
    step TEXT,
    received INTEGER NOT NULL,
    arriving INTEGER NOT NULL,
    speed REAL,
    errors INTEGER NOT NULL,
    retries INTEGER NOT NULL,
    PRIMARY KEY (upload, at)
) STRICT, WITHOUT ROWID;

CREATE INDEX sample_by_age ON sample (at);
