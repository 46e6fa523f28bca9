-- For as long as a server outside decides how fast rows come. No lock is held meanwhile.
SET LOCAL idle_in_transaction_session_timeout = 0
