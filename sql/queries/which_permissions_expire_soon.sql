-- Which facilities have no permission, or one that expires soon?
-- parameter days: number 1 to 4000, within how many days; 60 if not given
-- Role: fer_writer
SELECT
    name AS facility_name,
    permission_valid_until,
    permission_approved_by,
    permission_purpose,
    permission_valid_until - current_date AS days_left
FROM fer.facility
WHERE is_in_registry
    AND (permission_valid_until IS NULL OR permission_valid_until < current_date + coalesce(nullif(current_setting('fer.days', true), '')::integer, 60))
ORDER BY permission_valid_until NULLS FIRST, facility_name;
