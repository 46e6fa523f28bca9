-- Which days of each facility were clearly above its target, and by at least how many percentage points?
-- parameter facility: facility, only this one
-- Role: fer_reader
-- Days are ordered within a facility, at most 50: those of facilities without an audit of their own
-- are not comparable with others.
SELECT
    facility_name,
    capture_day,
    points_above_at_least,
    happy_rate,
    happy_rate_low,
    happy_rate_high,
    target_rate,
    CASE WHEN is_comparable THEN 'comparable' ELSE 'not comparable' END AS with_other_facilities
FROM (
    SELECT
        *,
        round(100 * (happy_rate_low - target_rate)::numeric, 1) AS points_above_at_least,
        row_number() OVER (
            PARTITION BY facility_id ORDER BY happy_rate_low - target_rate DESC, capture_day DESC) AS place
    FROM fer.satisfaction_daily
    WHERE verdict = 'satisfied' AND is_complete
        AND capture_day < (now() AT TIME ZONE time_zone)::date
        AND facility_id = coalesce(nullif(current_setting('fer.facility', true), ''), facility_id)
        -- The verdicts of the method wilson are about another target.
        AND method <> 'wilson'
) AS placed
WHERE place <= 50
ORDER BY facility_name, facility_id, place;
