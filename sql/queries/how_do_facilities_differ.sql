-- How does the happy rate differ between facilities with an audit of their own, in their newest week?
-- parameter facility: facility, only this one and the others
-- Role: fer_reader
-- Without an audit each, two facilities are not comparable and have no row. The two audits are
-- independent of each other, so that the interval of a difference follows from those of the rates
-- (G. Y. Zou and A. Donner 2008, Construction of confidence limits about effect measures, Statistics
-- in Medicine 27, 1693-1702). Of many pairs, one in twenty seems to differ by chance.
WITH week AS (
    SELECT DISTINCT ON (w.facility_id) w.*
    FROM fer.satisfaction_period AS w
    JOIN fer.newest_complete_day AS newest USING (facility_id)
    WHERE w.period = 'week' AND w.last_day <= newest.capture_day + 6
    ORDER BY w.facility_id, w.last_day DESC
),
pair AS (
    SELECT
        one.facility_name, other.facility_name AS other_facility_name, one.last_day,
        one.happy_rate AS p, one.happy_rate_low AS p_low, one.happy_rate_high AS p_high,
        other.happy_rate AS q, other.happy_rate_low AS q_low, other.happy_rate_high AS q_high
    FROM week AS one
    JOIN week AS other
        ON other.last_day = one.last_day
        AND (other.facility_name, other.facility_id) > (one.facility_name, one.facility_id)
    WHERE one.is_comparable
        AND other.is_comparable
        AND coalesce(nullif(current_setting('fer.facility', true), ''), one.facility_id)
        IN (one.facility_id, other.facility_id)
),
difference AS (
    SELECT
        *,
        greatest(-1, p - q - sqrt((p - p_low) ^ 2 + (q_high - q) ^ 2)) AS low,
        least(1, p - q + sqrt((p_high - p) ^ 2 + (q - q_low) ^ 2)) AS high
    FROM pair
)
SELECT
    facility_name,
    other_facility_name,
    last_day AS week_until,
    round(100 * p::numeric) AS happy_percent,
    round(100 * q::numeric) AS other_happy_percent,
    round(100 * (p - q)::numeric) AS points_higher,
    round(100 * low::numeric) AS from_points,
    round(100 * high::numeric) AS to_points,
    CASE WHEN low > 0 THEN 'higher' WHEN high < 0 THEN 'lower' ELSE 'no clear difference' END
        AS difference
FROM difference
ORDER BY facility_name, other_facility_name;
