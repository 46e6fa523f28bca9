-- name: configure_transaction
-- Settings that hold until the transaction ends, whatever the server, the database or the role
-- sets. They are not sent as startup options, because connection poolers refuse or ignore these.
-- With :is_local false, for statements outside of a transaction, they hold for the session.
SELECT
    set_config('statement_timeout', :statement_timeout, :is_local),
    -- Otherwise a process that hangs, or whose machine is disconnected, keeps its locks, and every
    -- retry waits for them in vain.
    set_config('idle_in_transaction_session_timeout', :idle_timeout, :is_local),
    -- The server notices within a second that the client of a running statement is gone. Servers on
    -- Windows cannot.
    set_config(
        'client_connection_check_interval',
        CASE WHEN version() ~ 'Visual C|mingw|msvc' THEN '0' ELSE '1s' END,
        :is_local),
    set_config('lock_timeout', '0', :is_local),
    -- Since PostgreSQL 17.
    CASE WHEN current_setting('transaction_timeout', true) IS NOT NULL
        THEN set_config('transaction_timeout', '0', :is_local) END,
    set_config('search_path', 'pg_catalog', :is_local),
    set_config('timezone', 'UTC', :is_local),
    set_config('datestyle', 'ISO, YMD', :is_local),
    set_config('intervalstyle', 'postgres', :is_local),
    set_config('bytea_output', 'hex', :is_local),
    set_config('standard_conforming_strings', 'on', :is_local),
    set_config('extra_float_digits', '1', :is_local),
    set_config('xmloption', 'content', :is_local);

-- name: limit_statements
-- The limits of the transaction's next statements.
SELECT
    set_config('statement_timeout', :statement_timeout, :is_local),
    set_config('idle_in_transaction_session_timeout', :idle_timeout, :is_local);
