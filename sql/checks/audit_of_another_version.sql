-- warning: the active audit is not valid for this model version; refresh it, or label again
-- closed by: later day
SELECT
    b.facility_id,
    b.capture_day,
    format('audit %s was not scored by this model version: run fer-batch audit refresh %s',
        newest.audit_id, newest.audit_id) AS finding
FROM unnest(CAST(:facility_ids AS text[])) AS f (facility_id)
CROSS JOIN unnest(CAST(:capture_days AS date[])) AS d (capture_day)
JOIN fer.batch AS b ON b.facility_id = f.facility_id AND b.capture_day = d.capture_day
CROSS JOIN LATERAL (
    SELECT a.audit_id
    FROM fer.audit AS a
    WHERE a.facility_id = b.facility_id
        AND b.capture_day >= a.start_day
        AND b.capture_day < a.expiry_day
    ORDER BY a.start_day DESC, a.audit_id DESC
    LIMIT 1
) AS newest
WHERE NOT EXISTS (
    SELECT FROM fer.audit_result AS r
    WHERE r.audit_id = newest.audit_id AND r.model_version = :model_version);
