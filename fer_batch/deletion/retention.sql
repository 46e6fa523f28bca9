-- name: set_horizon
-- The horizon only moves forward: dropped rows cannot be restored.
INSERT INTO fer.retention (before_day)
SELECT :before_day
WHERE NOT EXISTS (SELECT FROM fer.retention WHERE before_day >= :before_day);

-- name: find_expired_partitions
-- Partitions of days before :before_day, with the statements that count, detach and drop each. The
-- images of a day come first: no step adds results to images that are gone, but images without
-- results would be scored again. Tables that were detached by a process that then died are
-- included.
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
    SELECT c.oid, c.relname, p.parent, p.ordinal, to_date(
        substring(c.relname FROM format('^%s_([0-9]{4}_[0-9]{2}_[0-9]{2})$', p.parent)),
        'YYYY_MM_DD') AS capture_day
    FROM unnest(ARRAY['image', 'image_result', 'face_result'])
        WITH ORDINALITY AS p (parent, ordinal)
    JOIN pg_class AS c ON c.relnamespace = 'fer'::regnamespace AND c.relkind = 'r'
) AS part
LEFT JOIN pg_inherits AS i ON i.inhrelid = part.oid
WHERE part.capture_day < :before_day
ORDER BY part.capture_day, part.ordinal;

-- name: strip_audit_faces
-- A label still counts in the confusion matrix of its audit, but no longer says of which image.
UPDATE fer.audit_face
SET capture_day = NULL, image_key = NULL, member = NULL, etag = NULL, size_bytes = NULL,
    face_index = NULL, box_x = NULL, box_y = NULL, box_width = NULL, box_height = NULL,
    session_number = NULL
WHERE capture_day = :capture_day;
