-- Whether a run that began later than :run_id has written a summary of the batch for this version.
SELECT EXISTS (
    SELECT
    FROM fer.satisfaction_summary AS summary
    JOIN fer.run AS later ON later.run_id = summary.run_id
    JOIN fer.run AS own ON own.run_id = :run_id AND own.began_at < later.began_at
    WHERE summary.facility_id = :facility_id
        AND summary.capture_day = :capture_day
        AND summary.model_version = :model_version)
