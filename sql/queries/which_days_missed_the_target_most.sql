-- Which days were clearly below their target, and by at least how many percentage points?
SELECT
    facility_name,
    capture_day,
    round(100 * (target_share - happy_share_high)::numeric, 1) AS points_below_at_least,
    happy_share,
    happy_share_low,
    happy_share_high,
    target_share
FROM fer.satisfaction_daily
WHERE verdict = 'not satisfied' AND is_complete
ORDER BY points_below_at_least DESC, capture_day DESC
LIMIT 50;
