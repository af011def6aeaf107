-- The schema `dlq`: it contains all tables of the platform, and only its owner may create objects
-- in it. Tables of older versions in the first schema of the user's own search_path, usually
-- `public`, are moved. It runs before all others, even if those were applied long ago. Idempotent.
--
-- Needs CREATE on the database, or a schema `dlq` that was created for this user.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

DO $$
DECLARE
    owner NAME;
    name  TEXT;
BEGIN
    IF to_regnamespace('dlq') IS NULL THEN
        BEGIN
            CREATE SCHEMA dlq;
        EXCEPTION WHEN duplicate_schema OR unique_violation THEN NULL;  -- another migrates just now
        END;
    END IF;
    SELECT rolname INTO owner FROM pg_namespace AS n JOIN pg_roles AS r ON r.oid = n.nspowner
    WHERE nspname = 'dlq';
    IF NOT pg_has_role(owner, 'USAGE') THEN
        RAISE EXCEPTION 'the schema dlq belongs to %: migrate as that user', owner
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    REVOKE ALL ON SCHEMA dlq FROM PUBLIC;

    -- Views that jobs lock which must run alone. The right to lock one is the right to delete from
    -- it; it has no rows.
    FOREACH name IN ARRAY ARRAY['migrate', 'drain', 'redrive', 'marts', 'alerts', 'regroup'] LOOP
        CONTINUE WHEN to_regclass('dlq.lock_' || name) IS NOT NULL;
        BEGIN
            EXECUTE format('CREATE VIEW dlq.%I AS SELECT true AS is_lock', 'lock_' || name);
            EXECUTE format('COMMENT ON VIEW dlq.%I IS %L', 'lock_' || name,
                'Locked by dlq jobs that must be alone (LOCK TABLE); holds nothing');
        EXCEPTION WHEN duplicate_table OR unique_violation THEN NULL;
        END;
    END LOOP;
    LOCK TABLE dlq.lock_migrate IN EXCLUSIVE MODE;
END $$;

DO $$
DECLARE
    tables CONSTANT TEXT[] := ARRAY[
        'failed_events', 'failed_payloads', 'drain_checkpoints', 'drain_epochs', 'drain_anchors',
        'stream_gaps', 'redrive_batches', 'redrives', 'service_totals', 'schema_migrations',
        'audit_log', 'alerts', 'alert_messages', 'stream_samples', 'consumer_samples', 'erasures',
        'erased_messages', 'platform', 'verifications'];
    first  REGCLASS;
    old    NAME;
    is_old BOOLEAN := false;
    moved  RECORD;
BEGIN
    IF to_regclass('dlq.failed_events') IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM set_config('search_path', reset_val, true) FROM pg_settings WHERE name = 'search_path';
    first := pg_catalog.to_regclass('failed_events');
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, dlq, pg_temp', true);
    SELECT nspname INTO old FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = first AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't';
    IF old IS NULL THEN
        RETURN;
    END IF;

    -- A service's own table is adopted; other tables are ours if our migrations are recorded.
    IF to_regclass(format('%I.schema_migrations', old)) IS NOT NULL THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM %I.schema_migrations AS m'
            ' WHERE to_jsonb(m) ->> ''name'' = ''0002_platform'')', old) INTO is_old;
    END IF;
    IF NOT is_old THEN
        EXECUTE format('ALTER TABLE %I.failed_events SET SCHEMA dlq', old);
        RETURN;
    END IF;
    FOR moved IN
        SELECT relname AS name FROM pg_class WHERE relname = ANY (tables)
        AND relkind IN ('r', 'p') AND relnamespace = old::regnamespace
    LOOP
        EXECUTE format('ALTER TABLE %I.%I SET SCHEMA dlq', old, moved.name);
    END LOOP;
    FOR moved IN
        SELECT oid::regprocedure AS name FROM pg_proc
        WHERE proname IN ('set_failed_events_updated_at', 'refuse_audit_change')
        AND pronargs = 0 AND pronamespace = old::regnamespace
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET SCHEMA dlq', moved.name);
    END LOOP;
    EXECUTE format('DROP FUNCTION IF EXISTS %I.share_mart(regclass)', old);

    -- The marts belonged to the drain, with all that it attached to them. They are dropped; the
    -- next dlq marts fills new ones.
    FOR moved IN
        SELECT oid::regclass AS name FROM pg_class
        WHERE starts_with(relname, 'mart_') AND relkind = 'r' AND relnamespace = old::regnamespace
    LOOP
        BEGIN
            EXECUTE format('DROP TABLE %s', moved.name);
        EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
            RAISE WARNING '% stays and is filled no more (%): let what uses it read the mart in the schema dlq, and drop it.',
                moved.name, SQLERRM;
        END;
    END LOOP;

    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'dlq_drain') THEN
        EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM dlq_drain', old);
        IF has_schema_privilege('dlq_drain', old, 'CREATE') THEN
            RAISE WARNING 'everybody, or dlq_drain, may make things in the schema %: let its owner REVOKE CREATE ON SCHEMA % FROM PUBLIC, dlq_drain.',
                old, quote_ident(old);
        END IF;
        FOR moved IN
            SELECT string_agg(p.oid::regprocedure::text, ', ') AS names FROM pg_proc AS p
            JOIN pg_roles AS r ON r.oid = p.proowner
            WHERE p.pronamespace = old::regnamespace AND pg_has_role(r.oid, 'dlq_drain', 'MEMBER')
            AND NOT r.rolsuper AND r.rolname <> current_user
        LOOP
            CONTINUE WHEN moved.names IS NULL;
            RAISE WARNING 'in the schema % are functions of logins that drain, which need none there: see what they do, and drop them: %.',
                old, moved.names;
        END LOOP;
    END IF;
END $$;

-- So people, Grafana and a pooler's sessions find the tables without writing dlq. It is last, so
-- that other users of this database find the same objects as before.
DO $$
DECLARE
    found TEXT;
BEGIN
    SELECT substr(setting, length('search_path=') + 1) INTO found
    FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase, unnest(setconfig) AS setting
    WHERE d.datname = current_database() AND s.setrole = 0 AND starts_with(setting, 'search_path=');
    found := coalesce(nullif(found, ''), '"$user", public');
    IF 'dlq' = ANY (string_to_array(replace(found, ' ', ''), ',')) THEN
        RETURN;
    END IF;
    EXECUTE format('ALTER DATABASE %I SET search_path = %s, dlq', current_database(), found);
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING '% does not own the database %, so tables are found as dlq.failed_events and so on only: let its owner ALTER DATABASE % SET search_path = %, dlq.',
        current_user, current_database(), quote_ident(current_database()), found;
END $$;

CREATE TABLE IF NOT EXISTS dlq.schema_migrations (
    name       TEXT PRIMARY KEY,
    applied_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE schema_migrations IS 'Migrations that were applied to this database.';
INSERT INTO schema_migrations (name) VALUES ('0000_schema') ON CONFLICT DO NOTHING;

COMMIT;
