-- name: list_remaining
-- The faces whose images were neither erased nor dropped.
SELECT face_number FROM fer.audit_face WHERE audit_id = :audit_id AND image_key IS NOT NULL;

-- name: count_dropped
-- The labeled faces whose keys retention has dropped.
SELECT count(*) FROM fer.audit_face WHERE audit_id = :audit_id AND image_key IS NULL;

-- name: delete_results
DELETE FROM fer.audit_result WHERE audit_id = :audit_id AND model_version = :model_version;

-- name: insert_result
-- A face that was erased meanwhile is left out.
INSERT INTO fer.audit_result (audit_id, face_number, facility_id, model_version, called_class)
SELECT audit_id, face_number, facility_id, :model_version, :called_class
FROM fer.audit_face
WHERE audit_id = :audit_id AND face_number = :face_number;

-- name: count_same
-- The faces that the model version calls as that of the draw does.
SELECT count(*)
FROM fer.audit_result AS r
JOIN fer.audit AS a USING (audit_id)
JOIN fer.audit_result AS d
    ON d.audit_id = r.audit_id AND d.face_number = r.face_number AND d.model_version = a.model_version
WHERE r.audit_id = :audit_id
    AND r.model_version = :model_version
    AND r.called_class = d.called_class;
