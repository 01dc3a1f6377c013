-- By which key an upload was asked for: whoever asks with it again means the same one (K-KEY-1), as long as it is there.

ALTER TABLE upload ADD COLUMN asked TEXT;

CREATE UNIQUE INDEX upload_by_asked ON upload (asked)
    WHERE asked IS NOT NULL AND (state IN ('receiving', 'verifying') OR state = 'complete');
