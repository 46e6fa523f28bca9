-- The read-only role of analysts, fer_analyst. Optional: run it once after `fer-batch db upgrade`,
-- as the owner of the schema if it may create roles, otherwise as an administrator of the server.
-- It is idempotent. Then create a login for each analyst:
--   CREATE ROLE ada LOGIN PASSWORD '…' IN ROLE fer_analyst;
-- Privileges on a partitioned table cover its partitions, so new days need no further grant. The
-- default privileges cover tables and views that a later upgrade adds.
DO $body$
BEGIN
    CREATE ROLE fer_analyst NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$body$;
GRANT USAGE ON SCHEMA fer TO fer_analyst;
GRANT SELECT ON ALL TABLES IN SCHEMA fer TO fer_analyst;
-- Analysts read all columns of cnn except the ONNX file.
REVOKE SELECT ON fer.cnn FROM fer_analyst;
GRANT SELECT (cnn_sha256, artifact_sha256, card, registered_at) ON fer.cnn TO fer_analyst;
DO $body$
BEGIN
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO fer_analyst', current_database());
    EXECUTE format(
        'ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA fer GRANT SELECT ON TABLES TO fer_analyst',
        (SELECT rolname FROM pg_roles JOIN pg_namespace ON nspowner = pg_roles.oid
            WHERE nspname = 'fer'));
END
$body$;
