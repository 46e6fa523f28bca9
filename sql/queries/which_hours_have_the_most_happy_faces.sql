-- At which hours of which weekdays are most faces called happy, over the newest four whole weeks?
-- parameter facility: facility, only this one
-- Role: fer_reader
-- Compare the hours of a facility. Called shares are not corrected: they are not comparable between
-- facilities.
SELECT
    facility_name,
    first_day,
    last_day,
    (ARRAY['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'])[weekday] AS weekday,
    hour,
    called_happy_percent,
    is_suppressed, -- too few faces or sessions to tell
    'not comparable' AS with_other_facilities
FROM fer.happy_by_hour
WHERE facility_id = coalesce(nullif(current_setting('fer.facility', true), ''), facility_id)
ORDER BY facility_name, called_happy_percent DESC NULLS LAST, happy_by_hour.weekday, hour;
