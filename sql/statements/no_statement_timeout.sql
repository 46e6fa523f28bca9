-- For this transaction: a migration takes as long as it takes, and may wait for another upgrade.
SET LOCAL statement_timeout = 0
