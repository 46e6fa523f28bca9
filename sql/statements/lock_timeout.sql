-- For the session: CONCURRENTLY stands in no transaction that it could be set for.
SELECT set_config('lock_timeout', :timeout, false)
