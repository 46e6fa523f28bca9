-- For logins that may read views only: fer-batch compares it with its own migrations.
CREATE OR REPLACE VIEW fer.schema_revision AS
SELECT version_num FROM fer.schema_version;

COMMENT ON VIEW fer.schema_revision IS 'Which migration the schema is at: one row.';
COMMENT ON COLUMN fer.schema_revision.version_num IS 'Number of the newest migration that was run';
