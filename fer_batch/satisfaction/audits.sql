-- name: count_labels
-- The labels of a facility's finished audits by true class and by what the model version calls the
-- face. A face counts once: as it was settled, otherwise in equal parts as its raters labeled it.
-- What nobody can tell is neither.
WITH label AS (
    SELECT
        l.audit_id, l.face_number, replace(l.label, 'cannot_tell', 'neither') AS true_class,
        1.0 / count(*) OVER (PARTITION BY l.audit_id, l.face_number) AS part
    FROM fer.audit_label AS l
    WHERE l.facility_id = :facility_id
        AND (
            l.is_settlement
            OR NOT EXISTS (
                SELECT FROM fer.audit_label AS s
                WHERE s.audit_id = l.audit_id AND s.face_number = l.face_number AND s.is_settlement))
),
counted AS (
    SELECT
        audit_id, label.true_class, r.called_class, sum(label.part) AS faces
    FROM label
    JOIN fer.audit_result AS r USING (audit_id, face_number)
    WHERE r.model_version = :model_version
    GROUP BY audit_id, label.true_class, r.called_class
)
SELECT
    a.audit_id, a.start_day, a.expiry_day, c.true_class, c.called_class,
    c.faces::double precision AS faces,
    round(sum(c.faces) OVER (PARTITION BY a.audit_id))::integer AS labels
FROM fer.audit AS a
JOIN counted AS c USING (audit_id)
WHERE a.facility_id = :facility_id AND a.finished_at IS NOT NULL
ORDER BY a.audit_id, c.true_class, c.called_class;
