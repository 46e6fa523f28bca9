-- For the session, since CONCURRENTLY allows no transaction to hold it for.
SELECT set_config('lock_timeout', :timeout, false)
