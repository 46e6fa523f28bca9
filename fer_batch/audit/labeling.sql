-- name: load_faces
-- The faces of an audit whose days retention has not dropped.
SELECT
    face_number, capture_day, image_key, member, etag, size_bytes, face_index, box_x, box_y,
    box_width, box_height
FROM fer.audit_face
WHERE audit_id = :audit_id AND image_key IS NOT NULL
ORDER BY face_number;

-- name: load_labels
SELECT face_number, rater, is_settlement, label
FROM fer.audit_label
WHERE audit_id = :audit_id
ORDER BY face_number, rater;

-- name: delete_label
-- There is one settlement of a face, whoever it is by.
DELETE FROM fer.audit_label
WHERE audit_id = :audit_id
    AND face_number = :face_number
    AND is_settlement = :is_settlement
    AND (is_settlement OR rater = :rater);

-- name: insert_label
-- Nothing is inserted for a face that was erased, nor as the rating of a third person.
INSERT INTO fer.audit_label (audit_id, face_number, facility_id, rater, is_settlement, label)
SELECT f.audit_id, f.face_number, f.facility_id, :rater, :is_settlement, :label
FROM fer.audit_face AS f
WHERE f.audit_id = :audit_id
    AND f.face_number = :face_number
    AND (
        :is_settlement
        OR (SELECT count(DISTINCT l.rater) FROM fer.audit_label AS l
            WHERE l.audit_id = :audit_id AND NOT l.is_settlement AND l.rater <> :rater)
            < :max_raters)
ON CONFLICT DO NOTHING;
