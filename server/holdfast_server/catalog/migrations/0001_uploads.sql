-- Uploads, their stored ranges, the event log, fences, and the bytes still to come.
-- Times are seconds since the epoch, sizes and offsets bytes, ranges half-open [start, stop).
-- What is looked at for every row that changes, in an index, a generated column or a trigger, has no list of more than
-- two values: SQLite makes a table of a longer one, each time anew.

CREATE TABLE upload (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    length INTEGER, -- NULL: not known yet
    parallel INTEGER NOT NULL,
    granule INTEGER NOT NULL,
    concat TEXT,
    metadata TEXT,
    name TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    expires REAL,
    expected TEXT,
    wanted TEXT,
    computed TEXT,
    prefix INTEGER NOT NULL,
    received INTEGER NOT NULL CHECK (received BETWEEN prefix AND ifnull(length, received)),
    error TEXT,
    error_detail TEXT
) STRICT;

CREATE INDEX upload_by_state ON upload (state, created, id);

CREATE INDEX upload_by_age ON upload (created, id) WHERE state NOT IN ('expired', 'terminated');

CREATE INDEX upload_by_expiry ON upload (expires)
    WHERE expires IS NOT NULL AND state NOT IN ('expired', 'terminated');

CREATE INDEX tombstone_by_age ON upload (updated) WHERE state IN ('expired', 'terminated');

-- Disjoint ranges that do not touch each other either.
CREATE TABLE stored (
    upload INTEGER NOT NULL,
    start INTEGER NOT NULL,
    stop INTEGER NOT NULL CHECK (start < stop),
    PRIMARY KEY (upload, start)
) STRICT, WITHOUT ROWID;

-- Which parts a final upload is put together from. One may be there several times.
CREATE TABLE part (
    final INTEGER NOT NULL,
    place INTEGER NOT NULL,
    part TEXT NOT NULL,
    PRIMARY KEY (final, place)
) STRICT, WITHOUT ROWID;

CREATE INDEX part_by_part ON part (part);

CREATE TABLE event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    upload TEXT NOT NULL,
    type TEXT NOT NULL,
    at REAL NOT NULL,
    data TEXT NOT NULL
) STRICT;

CREATE TABLE fence (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    upload TEXT NOT NULL,
    start INTEGER NOT NULL,
    stop INTEGER NOT NULL,
    at REAL NOT NULL
) STRICT;

CREATE INDEX fence_by_age ON fence (at);

-- The bytes that all receiving uploads of a known length still have coming: one row, kept by the triggers below, so that asking for it
-- costs the same with one upload and with a million. Billions and the rest are summed apart: each length may be near
-- 10^18, and a handful of those would overflow one 64-bit sum.
CREATE TABLE coming (
    billions INTEGER NOT NULL,
    units INTEGER NOT NULL
) STRICT;

INSERT INTO coming VALUES (0, 0);

CREATE TRIGGER coming_more AFTER INSERT ON upload WHEN NEW.state = 'receiving'
BEGIN
    UPDATE coming SET
        billions = billions + (ifnull(NEW.length, NEW.received) - NEW.received) / 1000000000,
        units = units + (ifnull(NEW.length, NEW.received) - NEW.received) % 1000000000;
END;

CREATE TRIGGER coming_less AFTER UPDATE OF state, length, received ON upload
    WHEN OLD.state = 'receiving' OR NEW.state = 'receiving'
BEGIN
    UPDATE coming SET
        billions = billions
            + (NEW.state = 'receiving') * ((ifnull(NEW.length, NEW.received) - NEW.received) / 1000000000)
            - (OLD.state = 'receiving') * ((ifnull(OLD.length, OLD.received) - OLD.received) / 1000000000),
        units = units
            + (NEW.state = 'receiving') * ((ifnull(NEW.length, NEW.received) - NEW.received) % 1000000000)
            - (OLD.state = 'receiving') * ((ifnull(OLD.length, OLD.received) - OLD.received) % 1000000000);
END;
