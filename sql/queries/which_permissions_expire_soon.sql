-- Which facilities have no permission, or one that expires within 60 days?
SELECT
    name AS facility_name,
    permission_valid_until,
    permission_approved_by,
    permission_purpose,
    permission_valid_until - current_date AS days_left
FROM fer.facility
WHERE is_in_registry
    AND (permission_valid_until IS NULL OR permission_valid_until < current_date + 60)
ORDER BY permission_valid_until NULLS FIRST, facility_name;
