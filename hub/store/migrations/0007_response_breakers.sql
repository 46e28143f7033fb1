-- A second circuit per service, for reading its response queue: it opens without parking dispatches.
CREATE TABLE response_breakers (
    service_id  bigint PRIMARY KEY REFERENCES services ON DELETE CASCADE,
    state       text NOT NULL DEFAULT 'closed' CHECK (state IN ('closed', 'open', 'half_open')),
    failures    integer NOT NULL DEFAULT 0,
    epoch       integer NOT NULL DEFAULT 0,
    retry_at    timestamptz,
    probe_until timestamptz,
    changed_at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
