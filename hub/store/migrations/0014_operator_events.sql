-- What happens in the hub, written by triggers in the transaction of what it reports; hub/pipeline/operator_events.py
-- turns the rows into events. `count`: how many times it happened.
CREATE TABLE notices (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind    text NOT NULL,
    subject text NOT NULL,
    count   bigint NOT NULL DEFAULT 1,
    data    jsonb NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX notices_subject ON notices (kind, subject, id);

-- After an event of a kind and subject, further ones wait until `until`, and become one event.
CREATE TABLE notice_windows (
    kind    text NOT NULL,
    subject text NOT NULL,
    until   timestamptz NOT NULL,
    PRIMARY KEY (kind, subject)
);

-- Dead letters of operator events are not reported: a failed notification makes no notification.
CREATE FUNCTION hub_notice_dead() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO notices (kind, subject, count, data)
        SELECT 'hub.task_dead', l.service, l.n, jsonb_build_object(
            'service', l.service, 'rule', r.name, 'event', d.event, 'reason', d.reason, 'error', left(d.error, 500),
            'task_id', d.task_id, 'dead_letter_id', d.id, 'attempts', d.attempts)
        FROM (
            SELECT x.service_id, coalesce(s.name, '?') AS service, max(x.id) AS last, count(*) AS n
            FROM new_rows x LEFT JOIN services s ON s.id = x.service_id
            WHERE x.event NOT IN ('hub.task_dead', 'hub.dead_letters_digest', 'hub.circuit_opened', 'hub.circuit_closed',
                'hub.consumer_failed', 'hub.secrets_unreadable', 'hub.no_workers', 'hub.source_lagging')
            GROUP BY 1, 2
        ) l JOIN new_rows d ON d.id = l.last LEFT JOIN rules r ON r.id = d.rule_id;
    RETURN NULL;
END $$;
CREATE TRIGGER dead_letters_notice AFTER INSERT ON dead_letters REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION hub_notice_dead();

-- A circuit that opens from half_open was open before. A service that only gets operator events is not reported.
CREATE FUNCTION hub_notice_circuit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state = 'half_open' OR OLD.state = 'half_open' AND NEW.state = 'open' THEN
        RETURN NULL;
    END IF;
    INSERT INTO notices (kind, subject, data)
        SELECT CASE NEW.state WHEN 'open' THEN 'hub.circuit_opened' ELSE 'hub.circuit_closed' END,
            s.name || ' ' || TG_ARGV[0], jsonb_build_object('service', s.name, 'circuit', TG_ARGV[0],
                'failures', CASE NEW.state WHEN 'open' THEN NEW.failures ELSE OLD.failures END,
                'retry_at', CASE NEW.state WHEN 'open' THEN NEW.retry_at END)
        FROM services s WHERE s.id = NEW.service_id AND s.deleted_at IS NULL
          AND (TG_ARGV[0] = 'responses'
               OR NOT EXISTS (SELECT FROM rules r WHERE r.service_id = s.id AND r.deleted_at IS NULL)
               OR EXISTS (SELECT FROM rules r WHERE r.service_id = s.id AND r.deleted_at IS NULL
                          AND NOT starts_with(r.event, 'hub.')));
    RETURN NULL;
END $$;
CREATE TRIGGER breakers_notice AFTER UPDATE OF state ON breakers FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION hub_notice_circuit('dispatch');
CREATE TRIGGER response_breakers_notice AFTER UPDATE OF state ON response_breakers FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION hub_notice_circuit('responses');

CREATE FUNCTION hub_notice_consumer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO notices (kind, subject, data)
        SELECT 'hub.consumer_failed', s.name, jsonb_build_object('service', s.name, 'error', left(NEW.last_error, 500))
        FROM services s WHERE s.id = NEW.service_id AND s.deleted_at IS NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER consumer_state_notice AFTER INSERT OR UPDATE OF last_error_at ON consumer_state FOR EACH ROW
    WHEN (NEW.last_error IS NOT NULL) EXECUTE FUNCTION hub_notice_consumer();
