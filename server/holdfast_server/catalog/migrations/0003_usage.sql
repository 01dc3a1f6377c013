-- What there is of uploads: how many are not finished, and how many bytes they come to, those included that they still
-- have coming. In all, and of each owner; kept by the triggers below, so that a quota is one lookup, within the
-- transaction that would go beyond it. Billions and the rest are summed apart, as in `coming`.

ALTER TABLE upload ADD COLUMN counted INTEGER GENERATED ALWAYS AS (
    CASE WHEN state IN ('expired', 'terminated') THEN 0
         WHEN state = 'failed' THEN received
         ELSE ifnull(length, received) END
) VIRTUAL;

ALTER TABLE upload ADD COLUMN open INTEGER GENERATED ALWAYS AS (
    state IN ('receiving', 'verifying') OR state = 'failed'
) VIRTUAL;

CREATE TABLE usage (
    owner TEXT NOT NULL PRIMARY KEY,
    open INTEGER NOT NULL,
    billions INTEGER NOT NULL,
    units INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE total (
    open INTEGER NOT NULL,
    billions INTEGER NOT NULL,
    units INTEGER NOT NULL
) STRICT;

INSERT INTO total
    SELECT ifnull(sum(open), 0), ifnull(sum(counted / 1000000000), 0), ifnull(sum(counted % 1000000000), 0) FROM upload;

INSERT INTO usage
    SELECT owner, sum(open), sum(counted / 1000000000), sum(counted % 1000000000)
    FROM upload WHERE owner IS NOT NULL GROUP BY owner;

CREATE TRIGGER total_more AFTER INSERT ON upload
BEGIN
    UPDATE total SET
        open = open + NEW.open,
        billions = billions + NEW.counted / 1000000000,
        units = units + NEW.counted % 1000000000;
END;

CREATE TRIGGER usage_more AFTER INSERT ON upload WHEN NEW.owner IS NOT NULL
BEGIN
    INSERT INTO usage VALUES (NEW.owner, NEW.open, NEW.counted / 1000000000, NEW.counted % 1000000000)
    ON CONFLICT DO UPDATE SET
        open = open + excluded.open,
        billions = billions + excluded.billions,
        units = units + excluded.units;
END;

CREATE TRIGGER total_less AFTER UPDATE OF state, length, received ON upload
    WHEN OLD.counted <> NEW.counted OR OLD.open <> NEW.open
BEGIN
    UPDATE total SET
        open = open + NEW.open - OLD.open,
        billions = billions + NEW.counted / 1000000000 - OLD.counted / 1000000000,
        units = units + NEW.counted % 1000000000 - OLD.counted % 1000000000;
END;

CREATE TRIGGER usage_less AFTER UPDATE OF state, length, received ON upload
    WHEN NEW.owner IS NOT NULL AND (OLD.counted <> NEW.counted OR OLD.open <> NEW.open)
BEGIN
    -- An owner whose uploads come to nothing has no row, and gets one again when they come to something.
    INSERT INTO usage VALUES (
        NEW.owner,
        NEW.open - OLD.open,
        NEW.counted / 1000000000 - OLD.counted / 1000000000,
        NEW.counted % 1000000000 - OLD.counted % 1000000000
    )
    ON CONFLICT DO UPDATE SET
        open = open + excluded.open,
        billions = billions + excluded.billions,
        units = units + excluded.units;
    DELETE FROM usage WHERE owner = NEW.owner AND open = 0 AND billions = 0 AND units = 0;
END;
