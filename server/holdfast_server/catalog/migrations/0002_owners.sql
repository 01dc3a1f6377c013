-- Whose an upload is, and which project shares it; NULL: nobody's, no project's.

ALTER TABLE upload ADD COLUMN owner TEXT;

ALTER TABLE upload ADD COLUMN project TEXT;

CREATE INDEX upload_by_owner ON upload (owner, created, id) WHERE owner IS NOT NULL;

CREATE INDEX upload_by_project ON upload (project, created, id) WHERE project IS NOT NULL;
