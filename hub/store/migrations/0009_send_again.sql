-- Send again: resends, edits, replays and backfills; and the lane of tasks that wait behind live events.

-- bulk: made by a backfill or a bulk replay; published when no live task of the service waits.
-- edited: payload or endpoint of this one task were given by a person; task_origins has them.
ALTER TABLE tasks ADD COLUMN bulk boolean NOT NULL DEFAULT false, ADD COLUMN edited boolean NOT NULL DEFAULT false;
DROP INDEX tasks_pending;
CREATE INDEX tasks_pending ON tasks (rule_id, next_run_at, id) WHERE state = 'pending' AND NOT bulk;
CREATE INDEX tasks_bulk ON tasks (rule_id, next_run_at, id) WHERE state = 'pending' AND bulk;
CREATE INDEX tasks_bulk_queued ON tasks (service_id) WHERE state = 'queued' AND bulk;

-- Pending tasks of the lane are counted as `bulk`, apart from live ones.
CREATE OR REPLACE FUNCTION hub_count_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO task_counts
        SELECT service_id, rule_id, CASE WHEN bulk AND state = 'pending' THEN 'bulk' ELSE state END, count(*)
        FROM new_rows GROUP BY 1, 2, 3;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION hub_count_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO task_counts
        SELECT service_id, rule_id, CASE WHEN bulk AND state = 'pending' THEN 'bulk' ELSE state END, -count(*)
        FROM old_rows GROUP BY 1, 2, 3;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION hub_count_updated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO task_counts
        SELECT service_id, rule_id, state, sum(d) FROM (
            SELECT service_id, rule_id, CASE WHEN bulk AND state = 'pending' THEN 'bulk' ELSE state END AS state, 1 AS d
            FROM new_rows
            UNION ALL
            SELECT service_id, rule_id, CASE WHEN bulk AND state = 'pending' THEN 'bulk' ELSE state END, -1
            FROM old_rows
        ) both_rows GROUP BY 1, 2, 3 HAVING sum(d) <> 0;
    RETURN NULL;
END $$;

-- Where a task that a person asked for came from; kept after the task has ended. `payload` and `endpoint`: given for
-- this one task. A rule gets an event by backfill once.
CREATE TABLE task_origins (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id        bigint NOT NULL UNIQUE,
    kind           text NOT NULL CHECK (kind IN ('resend', 'replay', 'backfill')),
    event_id       bigint NOT NULL,
    rule_id        bigint NOT NULL,
    delivery_id    bigint,
    dead_letter_id bigint,
    backfill_id    bigint,
    payload        text,
    endpoint       text,
    actor          text NOT NULL,
    actor_kind     text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX task_origins_backfill ON task_origins (rule_id, event_id) WHERE kind = 'backfill';
CREATE INDEX task_origins_event ON task_origins (event_id);

-- position: the last event id that was looked at; from it to last_id is left. settled_at: the transaction id below
-- which no transaction may still be open when the end is reached, so that no event that commits late is missed.
-- paced_at: up to when the rate has been used.
CREATE TABLE backfills (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule_id    bigint NOT NULL,
    rule       text NOT NULL,
    state      text NOT NULL CHECK (state IN ('running', 'paused', 'cancelled', 'done')),
    since      timestamptz NOT NULL,
    until      timestamptz NOT NULL,
    rate       double precision NOT NULL CHECK (rate > 0),
    first_id   bigint NOT NULL,
    last_id    bigint NOT NULL,
    position   bigint NOT NULL,
    settled_at xid8 NOT NULL,
    expected   bigint,
    matched    bigint NOT NULL DEFAULT 0,
    skipped    bigint NOT NULL DEFAULT 0,
    tasks      bigint NOT NULL DEFAULT 0,
    waits_for  text,
    paced_at   timestamptz NOT NULL DEFAULT now(),
    actor      text NOT NULL,
    actor_kind text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz
);
CREATE UNIQUE INDEX backfills_live ON backfills (rule_id) WHERE state IN ('running', 'paused');

-- A person's data was erased from the event: its data is blank, and it is never sent again.
ALTER TABLE events ADD COLUMN erased_at timestamptz;
