-- For this transaction: what is joined is whole days of facilities. The planner takes columns that
-- agree row by row for independent, expects few rows, and would look up each one in an index.
SELECT set_config('enable_nestloop', 'off', true), set_config('enable_mergejoin', 'off', true)
