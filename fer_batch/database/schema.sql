-- name: compose_analyze
-- ANALYZE statements for the partitions of some capture days. The planner has no statistics about
-- rows that were written a minute ago and would join them one by one. Partitions that have not
-- changed since they were last analyzed are skipped.
SELECT format('ANALYZE fer.%I', c.relname) AS statement
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = ANY(ARRAY['fer.image', 'fer.image_result', 'fer.face_result']::regclass[])
    AND NOT i.inhdetachpending
    AND (pg_stat_get_mod_since_analyze(c.oid) > 0 OR c.reltuples < 0)
    AND substring(c.relname FROM '[0-9]{4}_[0-9]{2}_[0-9]{2}$') IN (
        SELECT to_char(day, 'YYYY_MM_DD') FROM unnest(:days) AS day)
ORDER BY c.relname;

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

-- name: list_missing_privileges
-- What a run needs beside writing rows: it creates partitions and temporary tables.
SELECT 'does not own the table fer.' || c.relname
FROM pg_class AS c
WHERE c.oid = ANY (ARRAY['fer.image', 'fer.image_result', 'fer.face_result']::regclass[])
    AND NOT pg_has_role(c.relowner, 'USAGE')
UNION ALL
SELECT 'has no privilege CREATE on the schema fer'
WHERE NOT has_schema_privilege('fer', 'CREATE')
UNION ALL
SELECT 'has no privilege TEMPORARY on the database'
WHERE NOT has_database_privilege(current_database(), 'TEMPORARY');

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
