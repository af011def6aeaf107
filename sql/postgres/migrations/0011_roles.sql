-- Rights by role: groups that cannot log in; grant them to the users that do the work. Idempotent.
--
-- Roles belong to the cluster: each of its databases with these tables grants them its own. To make
-- one needs CREATEROLE. Where that is missing, this warns and goes on; a superuser then runs this
-- file again with psql -f.

BEGIN;

DO $$
DECLARE
    roles CONSTANT TEXT[] := ARRAY['dlq_drain', 'dlq_redriver', 'dlq_alerts', 'dlq_analyst',
                                   'dlq_auditor', 'dlq_payloads', 'dlq_maintenance'];
    lacks TEXT[];
    name  TEXT;
    given RECORD;
BEGIN
    FOREACH name IN ARRAY roles LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = name);
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', name);
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;  -- another database made it just now
            WHEN insufficient_privilege THEN
                lacks := lacks || name;
        END;
    END LOOP;
    IF lacks IS NOT NULL THEN
        RAISE WARNING '% may not make roles, so there is no %: let a superuser run this file with psql -f.',
            current_user, array_to_string(lacks, ', ');
    END IF;

    -- A redrive drains before and after. Marts that the tables' owner makes belong to the drain, too.
    FOR given IN
        SELECT r.rolname AS role_name, m.rolname AS member
        FROM (VALUES ('dlq_drain', 'dlq_redriver'), ('dlq_drain', 'dlq_maintenance'),
                     ('dlq_payloads', 'dlq_maintenance'), ('dlq_analyst', 'dlq_alerts'),
                     ('dlq_drain', (SELECT relowner::regrole::text FROM pg_class
                                    WHERE oid = 'failed_events'::regclass))
             ) AS part (role_name, member)
        JOIN pg_roles AS r ON r.rolname = part.role_name
        JOIN pg_roles AS m ON quote_ident(m.rolname) = part.member
        WHERE NOT pg_has_role(m.oid, r.oid, 'USAGE')
    LOOP
        BEGIN
            EXECUTE format('GRANT %I TO %I', given.role_name, given.member);
        EXCEPTION
            WHEN unique_violation THEN NULL;  -- another database did it just now
            WHEN insufficient_privilege THEN
                RAISE WARNING '% may not grant the role % to %: let a superuser run this file with psql -f.',
                    current_user, given.role_name, given.member;
        END;
    END LOOP;

    -- The tables that there are. Unmasked are failed_payloads and redrive_batches.patch, so neither
    -- drain nor analyst reads them; the audit is added to, and changed by nobody.
    FOR given IN
        SELECT g.role_name, g.rights, t.table_name
        FROM (VALUES
            ('dlq_drain', 'SELECT, INSERT, UPDATE', 'failed_events drain_checkpoints stream_gaps'),
            ('dlq_drain', 'SELECT, INSERT', 'drain_epochs drain_anchors service_totals verifications'),
            ('dlq_drain', 'SELECT, INSERT, UPDATE', 'platform'),
            ('dlq_drain', 'SELECT, UPDATE', 'redrives'),
            ('dlq_drain', 'SELECT', 'erasures schema_migrations'),
            ('dlq_drain', 'SELECT, INSERT', 'erased_messages'),  -- from the lake's copy
            ('dlq_drain', 'INSERT, DELETE, SELECT (failure_id, stored_at)', 'failed_payloads'),
            ('dlq_redriver', 'SELECT, INSERT, UPDATE', 'redrive_batches redrives'),
            ('dlq_redriver', 'INSERT', 'audit_log'),
            ('dlq_analyst', 'SELECT', 'failed_events drain_checkpoints drain_epochs drain_anchors'
                ' stream_gaps redrives service_totals alerts alert_messages stream_samples'
                ' consumer_samples schema_migrations platform verifications'),
            ('dlq_analyst', format('SELECT (%s)', (
                SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
                WHERE attrelid = 'redrive_batches'::regclass AND attnum > 0 AND NOT attisdropped
                  AND attname <> 'patch')), 'redrive_batches'),
            ('dlq_alerts', 'INSERT, UPDATE, DELETE', 'alerts'),
            ('dlq_alerts', 'INSERT, UPDATE', 'alert_messages'),
            ('dlq_alerts', 'INSERT, DELETE', 'stream_samples consumer_samples'),
            ('dlq_alerts', 'INSERT', 'audit_log'),
            ('dlq_auditor', 'SELECT', 'audit_log redrives redrive_batches erasures schema_migrations'),
            ('dlq_payloads', 'SELECT', 'failed_payloads'),
            ('dlq_maintenance', 'SELECT, DELETE', 'failed_events redrives'),
            ('dlq_maintenance', 'SELECT, UPDATE, DELETE', 'redrive_batches'),
            ('dlq_maintenance', 'SELECT, UPDATE', 'alerts alert_messages'),
            ('dlq_maintenance', 'SELECT, INSERT, UPDATE', 'erasures'),
            ('dlq_maintenance', 'SELECT, INSERT', 'audit_log')
        ) AS g (role_name, rights, table_names)
        CROSS JOIN unnest(string_to_array(g.table_names, ' ')) AS t (table_name)
        JOIN pg_roles AS r ON r.rolname = g.role_name
        WHERE to_regclass(t.table_name) IS NOT NULL
    LOOP
        EXECUTE format('GRANT %s ON %I TO %I', given.rights, given.table_name, given.role_name);
    END LOOP;

    -- The schema; in it the drain makes marts anew whose columns have changed.
    FOR given IN
        SELECT r.rolname AS role_name, p.right_name FROM pg_roles AS r
        JOIN (VALUES ('USAGE'), ('CREATE')) AS p (right_name)
          ON p.right_name = 'USAGE' OR r.rolname = 'dlq_drain'
        WHERE r.rolname = ANY (roles) AND NOT has_schema_privilege(r.oid, current_schema(), p.right_name)
    LOOP
        BEGIN
            EXECUTE format('GRANT %s ON SCHEMA %I TO %I', given.right_name, current_schema(), given.role_name);
        EXCEPTION WHEN insufficient_privilege THEN NULL;
        END;
        IF NOT has_schema_privilege(given.role_name, current_schema(), given.right_name) THEN
            RAISE WARNING '% needs % on the schema %: let its owner, or a superuser, run this file with psql -f.',
                given.role_name, given.right_name, current_schema();
        END IF;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION share_mart(mart REGCLASS) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    given RECORD;
BEGIN
    FOR given IN
        SELECT s.role_name, s.statement FROM (VALUES
            ('dlq_analyst', 'GRANT SELECT ON %s TO %I'),
            ('dlq_drain', 'GRANT SELECT, INSERT, DELETE ON %s TO %I'),
            ('dlq_drain', 'ALTER TABLE %s OWNER TO %I')
        ) AS s (role_name, statement) JOIN pg_roles AS r ON r.rolname = s.role_name
    LOOP
        BEGIN
            EXECUTE format(given.statement, mart, given.role_name);
        EXCEPTION WHEN insufficient_privilege THEN
            NULL;  -- of somebody who is no member of the drain: it stays theirs
        END;
    END LOOP;
END;
$$;
COMMENT ON FUNCTION share_mart IS
    'Give a new mart to the drain''s group, so that each of its users can replace it, and to readers.';
SELECT share_mart(oid::regclass) FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND relname LIKE 'mart\_%';

INSERT INTO schema_migrations (name) VALUES ('0011_roles') ON CONFLICT DO NOTHING;

COMMIT;
