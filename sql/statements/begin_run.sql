-- By the database's clock, as scored_at is. Not now(): whoever begins the same run at the same
-- moment waits for the first and then reads what it wrote.
INSERT INTO fer.run (run_id, began_at, model_version)
VALUES (:run_id, clock_timestamp(), :model_version)
ON CONFLICT (run_id) DO UPDATE
    SET model_version = coalesce(fer.run.model_version, excluded.model_version)
RETURNING began_at, model_version
