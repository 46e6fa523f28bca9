-- How do the groups of facilities compare on the newest complete day of each facility?
-- Role: fer_reader
-- Rates of facilities without an audit of their own are not comparable: the lowest and the highest
-- rate are those of at least two facilities with one.
SELECT
    coalesce(f.group_name, 'no group') AS facility_group,
    count(*) AS facilities,
    count(*) FILTER (WHERE d.verdict = 'satisfied') AS satisfied,
    count(*) FILTER (WHERE d.verdict = 'inconclusive') AS inconclusive,
    count(*) FILTER (WHERE d.verdict = 'not satisfied') AS not_satisfied,
    count(*) FILTER (WHERE d.happy_rate IS NULL) AS without_rate,
    -- The report has the corrected total of a group with its interval.
    sum(d.faces) FILTER (WHERE d.happy_rate IS NOT NULL) AS faces,
    count(*) FILTER (WHERE d.is_comparable) AS comparable_facilities,
    CASE WHEN count(*) FILTER (WHERE d.is_comparable) > 1
        THEN round(100 * min(d.happy_rate) FILTER (WHERE d.is_comparable)::numeric)
        END AS lowest_happy_percent,
    CASE WHEN count(*) FILTER (WHERE d.is_comparable) > 1
        THEN round(100 * max(d.happy_rate) FILTER (WHERE d.is_comparable)::numeric)
        END AS highest_happy_percent
FROM fer.facility_public AS f
LEFT JOIN fer.newest_complete_day AS newest USING (facility_id)
-- The verdicts of the method wilson are about another figure.
LEFT JOIN fer.satisfaction_daily AS d
    ON d.facility_id = newest.facility_id
    AND d.capture_day = newest.capture_day
    AND d.method <> 'wilson'
WHERE f.is_in_registry
GROUP BY f.group_name
ORDER BY f.group_name NULLS LAST;
