-- How an event's body is encoded, and why it was not decoded. Idempotent.
--
-- Rows that were drained before have neither.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

ALTER TABLE failed_events
    ADD COLUMN IF NOT EXISTS body_format TEXT,
    ADD COLUMN IF NOT EXISTS body_error TEXT;
COMMENT ON COLUMN failed_events.body_format IS
    'formats that the body was decoded from, outermost first: msgpack, cbor, avro, protobuf, gzip+msgpack, …; null: it is JSON, or not decoded';
COMMENT ON COLUMN failed_events.body_error IS
    'why the body, or a part of it, is not decoded; null: it is, or it has no known format';

INSERT INTO schema_migrations (name) VALUES ('0031_body_formats') ON CONFLICT DO NOTHING;

COMMIT;
