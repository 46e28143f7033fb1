-- Order: tasks of one rule with one key are delivered one at a time, in the order of `position`.
ALTER TABLE rules
    ADD COLUMN ordering_key text,
    ADD COLUMN on_failure text NOT NULL DEFAULT 'block' CHECK (on_failure IN ('block', 'continue'));

-- position: the id of the event; of a task that goes behind all others a new number of the same sequence.
-- holds_key: this task is the one of its key that may run. blocked: another task holds the key, or nobody does yet.
ALTER TABLE tasks
    ADD COLUMN ordering_key text,
    ADD COLUMN position bigint,
    ADD COLUMN holds_key boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT tasks_state_check,
    ADD CONSTRAINT tasks_state_check CHECK (state IN ('pending', 'queued', 'running', 'delayed', 'blocked'));
CREATE UNIQUE INDEX tasks_key_holder ON tasks (rule_id, ordering_key) WHERE holds_key;
CREATE INDEX tasks_key_blocked ON tasks (rule_id, ordering_key, position, id) WHERE state = 'blocked';
DROP INDEX tasks_expiry;
CREATE INDEX tasks_expiry ON tasks (expires_at) WHERE state IN ('pending', 'delayed', 'blocked');
ALTER TABLE dead_letters ADD COLUMN ordering_key text, ADD COLUMN position bigint;

-- Passes each key to the first task that waits for it. The keys have no holder: it was deleted or gave the key up in
-- this transaction. A task of the bulk lane leaves it when a live task waits behind it.
CREATE FUNCTION hub_pass_keys(rules bigint[], keys text[]) RETURNS void LANGUAGE sql AS $$
    UPDATE tasks t SET state = 'pending', holds_key = true, next_run_at = clock_timestamp(),
        bulk = t.bulk AND coalesce((
            SELECT l.bulk FROM tasks l
            WHERE l.rule_id = t.rule_id AND l.ordering_key = t.ordering_key AND l.state = 'blocked'
            ORDER BY l.position DESC, l.id DESC LIMIT 1), true)
    WHERE t.state = 'blocked' AND t.id = ANY(ARRAY(
        SELECT f.id FROM unnest(rules, keys) AS k(rule_id, key) CROSS JOIN LATERAL (
            SELECT b.id FROM tasks b
            WHERE b.rule_id = k.rule_id AND b.ordering_key = k.key AND b.state = 'blocked'
            ORDER BY b.position, b.id LIMIT 1) f))
$$;

CREATE OR REPLACE FUNCTION hub_count_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    rules bigint[];
    keys  text[];
BEGIN
    INSERT INTO task_counts
        SELECT service_id, rule_id, CASE WHEN bulk AND state = 'pending' THEN 'bulk' ELSE state END, -count(*)
        FROM old_rows GROUP BY 1, 2, 3;
    IF EXISTS (SELECT FROM old_rows WHERE holds_key) THEN
        SELECT array_agg(rule_id), array_agg(ordering_key) INTO rules, keys FROM old_rows WHERE holds_key;
        PERFORM hub_pass_keys(rules, keys);
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION hub_count_updated() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    rules bigint[];
    keys  text[];
BEGIN
    INSERT INTO task_counts
        SELECT service_id, rule_id, state, sum(d) FROM (
            SELECT service_id, rule_id, CASE WHEN bulk AND state = 'pending' THEN 'bulk' ELSE state END AS state, 1 AS d
            FROM new_rows
            UNION ALL
            SELECT service_id, rule_id, CASE WHEN bulk AND state = 'pending' THEN 'bulk' ELSE state END, -1
            FROM old_rows
        ) both_rows GROUP BY 1, 2, 3 HAVING sum(d) <> 0;
    IF EXISTS (SELECT FROM old_rows WHERE holds_key) THEN
        SELECT array_agg(o.rule_id), array_agg(o.ordering_key) INTO rules, keys
        FROM old_rows o JOIN new_rows n ON n.id = o.id WHERE o.holds_key AND NOT n.holds_key;
        IF rules IS NOT NULL THEN
            PERFORM hub_pass_keys(rules, keys);
        END IF;
    END IF;
    RETURN NULL;
END $$;
