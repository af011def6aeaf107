-- Who owns a failure group, and what people say about it: note, ticket, labels, mute. Idempotent.
--
-- The drain writes both tables: group_decisions from the log, ruled_owners from the rules file. So
-- a new database gets them again.

BEGIN;
SET LOCAL search_path = pg_catalog, dlq, pg_temp;

CREATE TABLE IF NOT EXISTS dlq.group_decisions (
    group_id    TEXT PRIMARY KEY,
    owner       TEXT,
    note        TEXT,
    ticket      TEXT,
    labels      TEXT[],
    muted_at    TIMESTAMPTZ,
    muted_by    TEXT,
    mute_reason TEXT,
    mute_until  TIMESTAMPTZ,
    mute_more   INTEGER,
    changed_at  TIMESTAMPTZ NOT NULL,
    changed_by  TEXT
);
COMMENT ON TABLE group_decisions IS 'What people decided about failure groups, from the log.';
COMMENT ON COLUMN group_decisions.ticket IS 'http or https address';
COMMENT ON COLUMN group_decisions.muted_at IS
    'server time of the message that muted it; null if it is not muted';
COMMENT ON COLUMN group_decisions.mute_until IS 'when the mute ends, if a time was given';
COMMENT ON COLUMN group_decisions.mute_more IS
    'further failures after which the mute ends, if a number was given; without either it ends when the group escalates';

CREATE TABLE IF NOT EXISTS dlq.ruled_owners (
    group_id   TEXT PRIMARY KEY,
    owner      TEXT,
    source     TEXT,
    rules_hash TEXT NOT NULL
);
COMMENT ON TABLE ruled_owners IS
    'Owners of failure groups by the rules file or CODEOWNERS, from the first drained failure of the group.';
COMMENT ON COLUMN ruled_owners.owner IS 'null if no rule matches';
COMMENT ON COLUMN ruled_owners.source IS 'rule or CODEOWNERS';
COMMENT ON COLUMN ruled_owners.rules_hash IS 'which rules gave it';

CREATE OR REPLACE VIEW dlq.group_care WITH (security_invoker = true) AS
SELECT
    COALESCE(d.group_id, r.group_id) AS group_id,
    COALESCE(d.owner, r.owner) AS owner,
    CASE WHEN d.owner IS NOT NULL THEN 'person' ELSE r.source END AS owner_source,
    d.note,
    d.ticket,
    d.labels,
    d.muted_at,
    d.muted_by,
    d.mute_reason,
    d.mute_until,
    d.mute_more,
    m.further_count,
    m.mute_ended,
    d.muted_at IS NOT NULL AND m.mute_ended IS NULL AS is_muted
FROM group_decisions AS d
FULL JOIN ruled_owners AS r ON r.group_id = d.group_id
LEFT JOIN LATERAL (
    SELECT
        c.further_count,
        CASE
            WHEN d.muted_at IS NULL THEN NULL
            WHEN d.mute_until IS NOT NULL
                THEN CASE WHEN d.mute_until <= now() THEN 'its time is over' END
            WHEN d.mute_more IS NOT NULL
                THEN CASE WHEN c.further_count >= d.mute_more THEN d.mute_more || ' more failures came' END
            WHEN EXISTS (
                SELECT FROM mart_failure_groups AS g WHERE g.group_id = d.group_id AND g.is_escalating
            ) THEN 'it escalates'
        END AS mute_ended
    FROM (
        SELECT CASE WHEN d.muted_at IS NOT NULL AND d.mute_more IS NOT NULL THEN (
            SELECT count(*) FROM (
                SELECT FROM failures AS f
                WHERE f.group_id = d.group_id AND f.opened_at > d.muted_at
                LIMIT d.mute_more
            ) AS further
        ) END AS further_count
    ) AS c
) AS m ON TRUE;
COMMENT ON VIEW group_care IS
    'One row per failure group with an owner or a decision: who owns it, and whether its mute still holds.';
COMMENT ON COLUMN group_care.owner_source IS 'person, rule or CODEOWNERS: what named the owner; null: nobody owns it';
COMMENT ON COLUMN group_care.further_count IS
    'failures since the mute, at most mute_more; null if the mute has no number';
COMMENT ON COLUMN group_care.mute_ended IS 'why the mute is over although the log does not say so yet; null if it holds';

DO $$
DECLARE
    given RECORD;
BEGIN
    FOR given IN
        SELECT g.role_name, g.rights, t.table_name
        FROM (VALUES
            ('dlq_drain', 'SELECT, INSERT, UPDATE', 'group_decisions'),
            ('dlq_drain', 'SELECT, INSERT, UPDATE, DELETE', 'ruled_owners'),
            ('dlq_drain', 'SELECT', 'group_care'),
            ('dlq_analyst', 'SELECT', 'group_decisions ruled_owners group_care')
        ) AS g (role_name, rights, table_names)
        CROSS JOIN unnest(string_to_array(g.table_names, ' ')) AS t (table_name)
        JOIN pg_roles AS r ON r.rolname = g.role_name
    LOOP
        EXECUTE format('GRANT %s ON dlq.%I TO %I', given.rights, given.table_name, given.role_name);
    END LOOP;
END $$;

INSERT INTO schema_migrations (name) VALUES ('0034_group_care') ON CONFLICT DO NOTHING;

COMMIT;
