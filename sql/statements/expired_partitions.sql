-- The partitions of days before :before_day, and the statements that take each away. A day's
-- images come first: results without their images are written by nobody, the other way round
-- they would be. Also found are tables that were detached by somebody who then died.
SELECT
    part.capture_day,
    part.parent,
    format('SELECT count(*) FROM fer.%I', part.relname) AS count_rows,
    CASE WHEN i.inhrelid IS NOT NULL THEN
        format('ALTER TABLE fer.%I DETACH PARTITION fer.%I %s', part.parent, part.relname,
            CASE WHEN i.inhdetachpending THEN 'FINALIZE' ELSE 'CONCURRENTLY' END)
    END AS detach,
    format('DROP TABLE IF EXISTS fer.%I', part.relname) AS drop_table
FROM (
    SELECT c.oid, c.relname, p.parent, p.place, to_date(
        substring(c.relname FROM format('^%s_([0-9]{4}_[0-9]{2}_[0-9]{2})$', p.parent)),
        'YYYY_MM_DD') AS capture_day
    FROM unnest(ARRAY['image', 'image_result', 'face_result']) WITH ORDINALITY AS p (parent, place)
    JOIN pg_class AS c ON c.relnamespace = 'fer'::regnamespace AND c.relkind = 'r'
) AS part
LEFT JOIN pg_inherits AS i ON i.inhrelid = part.oid
WHERE part.capture_day < :before_day
ORDER BY part.capture_day, part.place
