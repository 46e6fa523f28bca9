-- By the database's clock, as scored_at is. Not now(): whoever begins the same run at the same
-- moment waits for the first and then reads its time.
INSERT INTO fer.run (run_id, began_at) VALUES (:run_id, clock_timestamp())
ON CONFLICT (run_id) DO UPDATE SET began_at = fer.run.began_at
RETURNING began_at
