-- The read-only role of analysts. Optional: run it once, as the owner of the schema, after
-- `fer-batch db upgrade`; running it again changes nothing. Then let people in by name:
--   CREATE ROLE ada LOGIN PASSWORD '…' IN ROLE fer_analyst;
-- Rights on a partitioned table cover its partitions, so new days need no further grant; views
-- and tables that a later upgrade adds are covered by the default privileges.
DO $body$
BEGIN
    CREATE ROLE fer_analyst NOLOGIN;
EXCEPTION WHEN duplicate_object THEN
    NULL;
END
$body$;
GRANT USAGE ON SCHEMA fer TO fer_analyst;
GRANT SELECT ON ALL TABLES IN SCHEMA fer TO fer_analyst;
ALTER DEFAULT PRIVILEGES IN SCHEMA fer GRANT SELECT ON TABLES TO fer_analyst;
