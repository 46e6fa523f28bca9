-- warning: more than 20 % of a day's images were not scored
-- closed by: later images
SELECT
    facility_id,
    capture_day,
    format('%s %% of %s images were not scored: %s',
        round(100.0 * sum(images) / all_images), all_images,
        string_agg(format('%s %s', images, outcome), ', ' ORDER BY images DESC, outcome)) AS finding
FROM fer.not_scored_daily
WHERE facility_id = ANY(:facility_ids) AND capture_day = ANY(:capture_days)
    AND outcome <> 'erased' -- deleted on request
GROUP BY facility_id, capture_day, all_images
HAVING sum(images) > 0.2 * all_images
