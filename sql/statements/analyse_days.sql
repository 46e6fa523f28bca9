-- The statements that tell the planner what lies in the partitions of some capture days. Rows that
-- were written a minute ago are unknown to it, and it would join them one by one. Partitions that
-- are as they were when they were last looked at are left out.
SELECT format('ANALYZE fer.%I', c.relname) AS analyse
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = ANY(ARRAY['fer.image', 'fer.image_result', 'fer.face_result']::regclass[])
    AND NOT i.inhdetachpending
    AND (pg_stat_get_mod_since_analyze(c.oid) > 0 OR c.reltuples < 0)
    AND substring(c.relname FROM '[0-9]{4}_[0-9]{2}_[0-9]{2}$') IN (
        SELECT to_char(day, 'YYYY_MM_DD') FROM unnest(:days) AS day)
ORDER BY c.relname
