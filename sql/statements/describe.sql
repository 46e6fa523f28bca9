-- Views first, then tables in the order in which data flows; partitions are left out.
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
        'satisfaction_daily', 'not_scored_daily', 'facility', 'cnn', 'cnn_promotion',
        'model_version', 'batch', 'run', 'image',
        'image_result', 'face_result', 'satisfaction_summary']::name[], c.relname) NULLS LAST,
    c.relname,
    a.attnum
