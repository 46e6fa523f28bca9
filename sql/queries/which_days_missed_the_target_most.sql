-- Which days were clearly below their target, and by at least how many percentage points?
-- parameter facility: facility, only this one
-- Role: fer_reader
SELECT
    facility_name,
    capture_day,
    round(100 * (target_rate - happy_rate_high)::numeric, 1) AS points_below_at_least,
    happy_rate,
    happy_rate_low,
    happy_rate_high,
    target_rate
FROM fer.satisfaction_daily
WHERE verdict = 'not satisfied' AND is_complete
    AND capture_day < (now() AT TIME ZONE time_zone)::date
    AND facility_id = coalesce(nullif(current_setting('fer.facility', true), ''), facility_id)
    -- The verdicts of the method wilson are about another target.
    AND method <> 'wilson'
ORDER BY points_below_at_least DESC, capture_day DESC
LIMIT 50;
