-- Who changed what: one row per change, written in the transaction of the change. Secrets are never in it.
CREATE TABLE audit_log (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           timestamptz NOT NULL DEFAULT now(),
    actor        text NOT NULL,
    actor_kind   text NOT NULL CHECK (actor_kind IN ('user', 'token', 'cli', 'link', 'system')),
    origin       text,
    action       text NOT NULL,
    subject_kind text NOT NULL,
    subject_id   bigint,
    subject_name text,
    before       jsonb,
    after        jsonb
);
CREATE INDEX audit_log_subject ON audit_log (subject_kind, subject_name, id);
CREATE INDEX audit_log_actor ON audit_log (actor, id);

-- Sessions are listed and revoked by a number, and say where they began.
ALTER TABLE sessions ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY UNIQUE;
ALTER TABLE sessions ADD COLUMN origin text;
