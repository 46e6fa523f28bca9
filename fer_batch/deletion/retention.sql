-- name: set_horizon
-- A horizon only moves forward: what was deleted cannot be restored.
INSERT INTO fer.retention (kind, before_day)
SELECT :kind, :before_day
WHERE NOT EXISTS (SELECT FROM fer.retention WHERE kind = :kind AND before_day >= :before_day);

-- name: list_days
-- The days before :before_day that have rows per image, by the names of their tables: these may be
-- detached, if a process of an earlier version was interrupted.
SELECT DISTINCT to_date(substring(c.relname FROM '_([0-9]{4}_[0-9]{2}_[0-9]{2})$'), 'YYYY_MM_DD') AS capture_day
FROM pg_class AS c
WHERE c.relnamespace = 'fer'::regnamespace
    AND c.relkind = 'r'
    AND c.relname ~ '^(image|image_result|face_result)_[0-9]{4}_[0-9]{2}_[0-9]{2}$'
    AND to_date(substring(c.relname FROM '_([0-9]{4}_[0-9]{2}_[0-9]{2})$'), 'YYYY_MM_DD') < :before_day
ORDER BY capture_day;

-- name: count_day
SELECT images, faces FROM fer.count_day(:capture_day);

-- name: drop_day
SELECT fer.drop_day(:capture_day);

-- name: list_blockers
-- The sessions that hold locks on the tables of images, on partitions of them, or the lock of the
-- findings. Their state and the begin of their transaction are visible to members of
-- pg_read_all_stats only.
SELECT DISTINCT a.pid, a.usename, a.application_name, a.state, a.xact_start
FROM pg_locks AS l
JOIN pg_database AS d ON d.oid = l.database AND d.datname = current_database()
JOIN pg_stat_activity AS a ON a.pid = l.pid
LEFT JOIN pg_class AS c ON c.oid = l.relation
WHERE l.granted
    AND (
        c.relnamespace = 'fer'::regnamespace
        AND c.relname ~ '^(image|image_result|face_result)(_[0-9]{4}_[0-9]{2}_[0-9]{2})?$'
        OR l.locktype = 'advisory'
        AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('fer.findings', 0))
    AND a.pid <> pg_backend_pid()
ORDER BY a.xact_start, a.pid;
