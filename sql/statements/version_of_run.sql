SELECT model_version FROM fer.run WHERE run_id = :run_id
