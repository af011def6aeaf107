-- Rights by role: group roles that cannot log in; grant them to the users that do the work.
-- Idempotent.
--
-- Roles belong to the cluster: each of its databases grants them its own tables. Creating a role
-- needs CREATEROLE. If that is missing, this file warns and continues; a superuser then runs it
-- again with psql -f.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

DO $$
DECLARE
    roles CONSTANT TEXT[] := ARRAY['dlq_drain', 'dlq_redriver', 'dlq_alerts', 'dlq_analyst',
                                   'dlq_auditor', 'dlq_payloads', 'dlq_maintenance'];
    -- The columns that a user writes; the server sets time and login.
    told  CONSTANT TEXT := 'INSERT (actor, action, reason, batch_id, failure_ids, detail)';
    marts CONSTANT TEXT := coalesce((
        SELECT string_agg(relname, ' ') FROM pg_class WHERE relkind = 'r'
        AND starts_with(relname, 'mart_') AND relnamespace = 'dlq'::regnamespace), '');
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

    -- A redrive drains before and after.
    FOR given IN
        SELECT r.rolname AS role_name, m.rolname AS member
        FROM (VALUES ('dlq_drain', 'dlq_redriver'), ('dlq_drain', 'dlq_maintenance'),
                     ('dlq_payloads', 'dlq_maintenance'), ('dlq_analyst', 'dlq_alerts')
             ) AS part (role_name, member)
        JOIN pg_roles AS r ON r.rolname = part.role_name
        JOIN pg_roles AS m ON m.rolname = part.member
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

    -- The existing tables. failed_payloads and redrive_batches.patch are unmasked, so drain and
    -- analyst cannot read them. Rows can be added to the audit, but nobody can change them.
    FOR given IN
        SELECT g.role_name, g.rights, t.table_name
        FROM (VALUES
            ('dlq_drain', 'SELECT, INSERT, UPDATE', 'failed_events drain_checkpoints stream_gaps replays'),
            ('dlq_drain', 'SELECT, INSERT', 'drain_epochs drain_anchors service_totals verifications'),
            ('dlq_drain', 'SELECT, INSERT, UPDATE', 'platform'),
            ('dlq_drain', 'SELECT, INSERT, DELETE', 'unfounded_outcomes diagnoses'),
            ('dlq_drain', 'SELECT, INSERT, UPDATE', 'group_decisions imports'),
            ('dlq_drain', 'SELECT, INSERT, UPDATE, DELETE', 'ruled_owners'),
            ('dlq_drain', 'SELECT, UPDATE', 'redrives'),
            ('dlq_drain', 'SELECT', 'erasures schema_migrations stopped_consumers failures'
                ' answered_redrives redrive_roots group_care'),
            ('dlq_drain', 'SELECT, INSERT', 'erased_messages'),  -- from the lake's copy
            ('dlq_drain', 'INSERT, DELETE, SELECT (failure_id, stored_at)', 'failed_payloads'),
            ('dlq_redriver', 'SELECT, INSERT, UPDATE', 'redrive_batches redrives'),
            ('dlq_drain', 'DELETE', 'lock_drain lock_marts lock_regroup'),  -- see 0000_schema
            ('dlq_drain', 'SELECT, INSERT, DELETE', marts),
            ('dlq_redriver', 'DELETE', 'lock_redrive'),
            ('dlq_redriver', told, 'audit_log'),
            ('dlq_analyst', 'SELECT', 'failed_events drain_checkpoints drain_epochs drain_anchors'
                ' stream_gaps redrives service_totals alerts alert_messages stream_samples'
                ' consumer_samples schema_migrations platform verifications unreached_consumers'
                ' stopped_consumers failures answered_redrives unfounded_outcomes replays redrive_roots'
                ' group_decisions ruled_owners group_care imports diagnoses'),
            ('dlq_analyst', 'SELECT', marts),
            ('dlq_analyst', format('SELECT (%s)', (
                SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
                WHERE attrelid = 'redrive_batches'::regclass AND attnum > 0 AND NOT attisdropped
                  AND attname <> 'patch')), 'redrive_batches'),
            ('dlq_alerts', 'INSERT, UPDATE, DELETE', 'alerts'),
            ('dlq_alerts', 'INSERT, UPDATE', 'alert_messages'),
            ('dlq_alerts', 'INSERT, DELETE', 'stream_samples consumer_samples'),
            ('dlq_alerts', 'SELECT, INSERT, UPDATE, DELETE', 'unreached_consumers stopped_consumers'),
            ('dlq_alerts', 'DELETE', 'lock_alerts'),
            ('dlq_alerts', told, 'audit_log'),
            ('dlq_auditor', 'SELECT', 'audit_log redrives redrive_batches replays erasures'
                ' schema_migrations'),
            ('dlq_payloads', 'SELECT', 'failed_payloads'),
            ('dlq_payloads', told, 'audit_log'),
            ('dlq_maintenance', 'SELECT, DELETE', 'failed_events redrives unfounded_outcomes'),
            ('dlq_maintenance', 'SELECT, UPDATE, DELETE', 'redrive_batches'),
            ('dlq_maintenance', 'SELECT, UPDATE', 'alerts alert_messages'),
            ('dlq_maintenance', 'SELECT, INSERT, UPDATE', 'erasures'),
            ('dlq_maintenance', 'SELECT, ' || told, 'audit_log')
        ) AS g (role_name, rights, table_names)
        CROSS JOIN unnest(string_to_array(g.table_names, ' ')) AS t (table_name)
        JOIN pg_roles AS r ON r.rolname = g.role_name
        WHERE to_regclass('dlq.' || t.table_name) IS NOT NULL
    LOOP
        EXECUTE format('GRANT %s ON dlq.%I TO %I', given.rights, given.table_name, given.role_name);
    END LOOP;

    FOR given IN SELECT rolname AS role_name FROM pg_roles WHERE rolname = ANY (roles) LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA dlq TO %I', given.role_name);
    END LOOP;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0011_roles') ON CONFLICT DO NOTHING;

COMMIT;
