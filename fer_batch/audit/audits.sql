-- name: load_audit
SELECT
    audit_id, facility_id, model_version, first_day, last_day, seed, faces_in_window, faces_drawn,
    created_at, created_by, finished_at, finished_by, start_day, expiry_day
FROM fer.audit
WHERE audit_id = :audit_id;

-- name: list_audits
-- faces: those that erasure has left. labeled: by at least one rater.
SELECT
    a.audit_id, a.facility_id, a.first_day, a.last_day, a.faces_in_window, a.faces_drawn,
    count(f.face_number) AS faces, count(l.face_number) AS labeled,
    (SELECT array_agg(DISTINCT r.rater ORDER BY r.rater)
        FROM fer.audit_label AS r
        WHERE r.audit_id = a.audit_id AND NOT r.is_settlement) AS raters,
    a.model_version, a.created_at, a.finished_at, a.start_day, a.expiry_day
FROM fer.audit AS a
LEFT JOIN fer.audit_face AS f ON f.audit_id = a.audit_id
LEFT JOIN (SELECT DISTINCT audit_id, face_number FROM fer.audit_label) AS l
    ON l.audit_id = f.audit_id AND l.face_number = f.face_number
WHERE CAST(:facility_id AS text) IS NULL OR a.facility_id = :facility_id
GROUP BY a.audit_id
ORDER BY a.audit_id DESC;
