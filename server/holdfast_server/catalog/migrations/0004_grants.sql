-- Which uploads were made by a signed URL that may make only so many.
CREATE TABLE use (
    name TEXT NOT NULL,
    upload TEXT NOT NULL,
    until REAL NOT NULL,
    PRIMARY KEY (name, upload)
) STRICT, WITHOUT ROWID;

CREATE INDEX use_by_upload ON use (upload);

CREATE INDEX use_by_end ON use (until);
