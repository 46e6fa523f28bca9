-- name: become_owner
-- Nothing happens if the schema does not exist, or if this login is its owner or may not become it.
SELECT set_config('role', pg_get_userbyid(n.nspowner), true)
FROM pg_namespace AS n
WHERE n.nspname = 'fer'
    AND pg_get_userbyid(n.nspowner) <> current_user
    AND pg_has_role(n.nspowner, CASE WHEN current_setting('server_version_num')::integer >= 160000
        THEN 'SET' ELSE 'MEMBER' END);

-- name: describe
-- Views come first, then tables in the order of the data flow. Partitions are left out.
SELECT
    c.relname AS relation,
    CASE c.relkind WHEN 'v' THEN 'view' ELSE 'table' END AS kind,
    obj_description(c.oid, 'pg_class') AS meaning,
    a.attname AS column_name,
    format_type(a.atttypid, a.atttypmod) AS column_type,
    col_description(c.oid, a.attnum) AS column_meaning
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'fer'::regnamespace
    AND c.relkind IN ('v', 'r', 'p')
    AND NOT c.relispartition
ORDER BY
    c.relkind <> 'v',
    array_position(ARRAY[
        'satisfaction_daily', 'satisfaction_period', 'not_scored_daily', 'facility', 'cnn',
        'cnn_promotion', 'model_version', 'batch', 'run', 'image',
        'image_result', 'face_result', 'satisfaction_summary']::name[], c.relname) NULLS LAST,
    c.relname,
    a.attnum;

-- name: write_nothing
-- For a transaction that is rolled back: a standby refuses it.
INSERT INTO fer.run (run_id, began_at) VALUES ('fer-batch check', clock_timestamp());

-- name: list_lock_holders
-- The sessions that use tables or views of the schema.
SELECT DISTINCT a.pid, a.usename, a.application_name, a.state
FROM pg_locks AS l
JOIN pg_class AS c ON c.oid = l.relation
JOIN pg_stat_activity AS a ON a.pid = l.pid
JOIN pg_database AS d ON d.oid = l.database
WHERE l.granted
    AND c.relnamespace = to_regnamespace('fer')
    AND d.datname = current_database()
    AND a.pid <> pg_backend_pid()
ORDER BY a.pid;
