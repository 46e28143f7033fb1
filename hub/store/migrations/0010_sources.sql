-- Event sources that the hub reads by itself. `url` has no password; that is in `secrets`.
CREATE TABLE sources (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL,
    type       text NOT NULL CHECK (type IN ('moodle_log')),
    url        text NOT NULL,
    enabled    boolean NOT NULL DEFAULT true,
    options    jsonb NOT NULL DEFAULT '{}',
    secrets    bytea,
    version    integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
CREATE UNIQUE INDEX sources_name ON sources (name) WHERE deleted_at IS NULL;
CREATE TRIGGER sources_changed AFTER INSERT OR UPDATE OR DELETE ON sources
    FOR EACH STATEMENT EXECUTE FUNCTION hub_config_changed();

-- How far a source was read. A row is written in the transaction that writes the events, and only by who has read
-- its `version`: two processes that read the same rows cannot both write them.
CREATE TABLE source_positions (
    source_id   bigint PRIMARY KEY REFERENCES sources ON DELETE CASCADE,
    version     bigint NOT NULL DEFAULT 0,
    owner       text,                          -- the process that reads, until its lease ends
    lease_until timestamptz,
    start       text,                          -- in place of the definition's, after a reset
    last_id     bigint,                        -- every id up to it was read, except gaps; null: not started
    last_row    text,                          -- fingerprint of the row with that id
    last_time   bigint,                        -- newest time of a row that was read (Unix seconds, Moodle's clock)
    skip_before bigint,                        -- rows from before this time, with ids up to skip_until, are skipped
    skip_until  bigint,
    marks       jsonb NOT NULL DEFAULT '[]',   -- [time, highest id at that time], ascending
    newest_id   bigint,                        -- highest id at the last look
    polled_at   timestamptz,                   -- last look that worked
    reached_at  timestamptz,                   -- last look that read everything there was
    read_at     timestamptz,                   -- last look that found rows
    read_rows   bigint NOT NULL DEFAULT 0,
    events      bigint NOT NULL DEFAULT 0,
    undecoded   bigint NOT NULL DEFAULT 0,
    refused     bigint NOT NULL DEFAULT 0,
    errors      bigint NOT NULL DEFAULT 0,
    last_error  text,
    error_at    timestamptz,
    waits_for   text                           -- why it does not read although it could: backlog, gaps
) WITH (fillfactor = 50);

-- Ids that were not visible when a higher one was read. They are looked at again until they are or grow too old.
CREATE TABLE source_gaps (
    source_id bigint NOT NULL REFERENCES sources ON DELETE CASCADE,
    low       bigint NOT NULL,
    high      bigint NOT NULL,
    seen      double precision NOT NULL,       -- Unix seconds, the hub's clock
    PRIMARY KEY (source_id, low)
);
