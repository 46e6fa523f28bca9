-- name: publishes_weeks
-- Whether some of the facilities publish by week.
SELECT EXISTS (
    SELECT FROM fer.facility WHERE facility_id = ANY(:facility_ids) AND publish_period = 'week');
