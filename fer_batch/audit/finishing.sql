-- name: finish_audit
UPDATE fer.audit
SET finished_at = clock_timestamp(), finished_by = session_user,
    start_day = :start_day, expiry_day = :expiry_day
WHERE audit_id = :audit_id;
