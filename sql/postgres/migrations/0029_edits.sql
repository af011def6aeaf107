-- What redrive_batches.patch holds since edits can be more than a merge patch. Idempotent.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

COMMENT ON COLUMN redrive_batches.patch IS
    'the edit of the events: a JSON merge patch (RFC 7396) or a JSON Patch (RFC 6902) of the bodies; or an array of '
    'one object: body (as before), headers, function (module:function), events (its results by failure); not redacted';

INSERT INTO schema_migrations (name) VALUES ('0029_edits') ON CONFLICT DO NOTHING;

COMMIT;
