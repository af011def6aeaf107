-- failed_events: one row per failure. It has exactly the columns of the older services' migration,
-- so that their table can be adopted unchanged. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

CREATE TABLE IF NOT EXISTS dlq.failed_events (
    id               UUID PRIMARY KEY,
    event_id         VARCHAR(255) NOT NULL,
    event_type       VARCHAR(100) NOT NULL,
    original_subject VARCHAR(255) NOT NULL,
    source_service   VARCHAR(100) NOT NULL,
    tenant_id        VARCHAR(255),
    field_id         VARCHAR(255),
    farmer_id        VARCHAR(255),
    error_message    TEXT NOT NULL,
    error_type       VARCHAR(100) NOT NULL,
    stack_trace      TEXT,
    retry_count      INTEGER NOT NULL DEFAULT 0,
    max_retries      INTEGER NOT NULL DEFAULT 3,
    first_attempt_at TIMESTAMPTZ NOT NULL,
    last_attempt_at  TIMESTAMPTZ NOT NULL,
    original_data    JSONB NOT NULL,
    original_headers JSONB DEFAULT '{}',
    dlq_timestamp    TIMESTAMPTZ NOT NULL,
    dlq_reason       VARCHAR(100) NOT NULL DEFAULT 'max_retries_exceeded',
    status           VARCHAR(50) NOT NULL DEFAULT 'pending',
    resolved_at      TIMESTAMPTZ,
    resolution_notes TEXT,
    alert_sent       BOOLEAN NOT NULL DEFAULT false,
    alert_sent_at    TIMESTAMPTZ,
    created_at       TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at       TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE OR REPLACE FUNCTION dlq.set_failed_events_updated_at() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.updated_at = now();
    RETURN NEW;
END;
$$;

DROP TRIGGER IF EXISTS failed_events_updated_at ON failed_events;
CREATE TRIGGER failed_events_updated_at BEFORE UPDATE ON failed_events
    FOR EACH ROW EXECUTE FUNCTION set_failed_events_updated_at();

COMMENT ON TABLE failed_events IS
    'One row per failure of a consumer on an event. Written only by the drain; texts are redacted.';
COMMENT ON COLUMN failed_events.id IS
    'failure_id: uuid5 of stream, sequence, time and consumer, so a repeat has the same id';
COMMENT ON COLUMN failed_events.event_id IS 'id of the event, from its producer';
COMMENT ON COLUMN failed_events.event_type IS 'last token of the original subject';
COMMENT ON COLUMN failed_events.original_subject IS 'subject of the event; a redrive goes there';
COMMENT ON COLUMN failed_events.source_service IS 'service that published the event';
COMMENT ON COLUMN failed_events.tenant_id IS 'tenant, from the event';
COMMENT ON COLUMN failed_events.field_id IS 'field, from the event';
COMMENT ON COLUMN failed_events.farmer_id IS 'farmer, from the event';
COMMENT ON COLUMN failed_events.error_message IS 'text of the exception';
COMMENT ON COLUMN failed_events.error_type IS 'class name of the exception';
COMMENT ON COLUMN failed_events.stack_trace IS 'chained traceback, if the consumer sent one';
COMMENT ON COLUMN failed_events.retry_count IS 'retries inside the consumer, before the dead letter';
COMMENT ON COLUMN failed_events.max_retries IS 'retries that the consumer allows after its first call';
COMMENT ON COLUMN failed_events.first_attempt_at IS 'first failed call';
COMMENT ON COLUMN failed_events.last_attempt_at IS 'last failed call';
COMMENT ON COLUMN failed_events.original_data IS 'body of the event, redacted';
COMMENT ON COLUMN failed_events.original_headers IS 'headers of the event, redacted';
COMMENT ON COLUMN failed_events.dlq_timestamp IS 'when the consumer gave up';
COMMENT ON COLUMN failed_events.dlq_reason IS 'why: max_retries_exceeded, handler_dead_letter, …';
COMMENT ON COLUMN failed_events.status IS
    'pending | retried (a redrive is published) | resolved | parked | discarded | superseded';
COMMENT ON COLUMN failed_events.resolved_at IS 'when it was resolved';
COMMENT ON COLUMN failed_events.resolution_notes IS 'reason from a person or a redrive';
COMMENT ON COLUMN failed_events.alert_sent IS 'whether an alert contained it';
COMMENT ON COLUMN failed_events.alert_sent_at IS 'when an alert last contained it';
COMMENT ON COLUMN failed_events.created_at IS 'when the row was stored';
COMMENT ON COLUMN failed_events.updated_at IS 'when the row was last changed, set by a trigger';

COMMIT;
