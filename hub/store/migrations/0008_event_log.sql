-- The event log: every event is kept, found by its id, its tasks and its search keys.
-- search_keys: (block of 16,384 ids) << 32 | CRC-32 of path=value; see hub/domain/search_keys.py. NULL in rows of before.
-- source: whose ids these are, such as token:7. cause_task_id: the task whose response or webhook this event is.
-- matched: how many rules matched when it was accepted; NULL in rows of before.
ALTER TABLE events ADD COLUMN search_keys bigint[], ADD COLUMN source text, ADD COLUMN cause_task_id bigint,
    ADD COLUMN matched smallint;
CREATE INDEX events_uid ON events USING hash (uid);
CREATE INDEX events_search ON events USING gin (search_keys);
CREATE INDEX events_cause ON events (cause_task_id) WHERE cause_task_id IS NOT NULL;

-- Since which event a path is indexed: events with lower ids are read one by one.
CREATE TABLE search_paths (
    path       text PRIMARY KEY,
    since_id   bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- What became of an event.
CREATE INDEX tasks_event ON tasks (event_id);
CREATE INDEX deliveries_event ON deliveries (event_id) WHERE event_id IS NOT NULL;
CREATE INDEX dead_letters_event ON dead_letters (event_id);
ALTER TABLE cancellations ADD COLUMN event_id bigint;
CREATE INDEX cancellations_task ON cancellations (task_id);
CREATE INDEX cancellations_event ON cancellations (event_id) WHERE event_id IS NOT NULL;
