-- warning: the audit of a facility expires soon, or has expired; label again
-- closed by: later day
-- From 30 days before. The newest audit counts: one that follows it closes the finding.
SELECT
    b.facility_id,
    b.capture_day,
    format(CASE WHEN b.capture_day < newest.expiry_day
        THEN 'audit %s corrects only days before %s: label again with fer-batch audit sample'
        ELSE 'audit %s has expired on %s, the card alone corrects the rates: label again with '
            || 'fer-batch audit sample'
        END, newest.audit_id, newest.expiry_day) AS finding
FROM unnest(CAST(:facility_ids AS text[])) AS f (facility_id)
CROSS JOIN unnest(CAST(:capture_days AS date[])) AS d (capture_day)
JOIN fer.batch AS b ON b.facility_id = f.facility_id AND b.capture_day = d.capture_day
CROSS JOIN LATERAL (
    SELECT a.audit_id, a.expiry_day
    FROM fer.audit AS a
    WHERE a.facility_id = b.facility_id AND b.capture_day >= a.start_day
    ORDER BY a.start_day DESC, a.audit_id DESC
    LIMIT 1
) AS newest
WHERE b.capture_day >= newest.expiry_day - 30;
