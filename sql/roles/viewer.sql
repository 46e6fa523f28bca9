-- The read-only role of viewers, fer_viewer: they see what is published, and nothing from which a
-- suppressed figure could be computed: neither rows of images and faces nor counts by class. For BI
-- tools and for analysts who should not see more. Optional: run it after each `fer-batch db upgrade`
-- that adds a view, as the owner of the schema if it may create roles, otherwise as an administrator
-- of the server. It is idempotent. Then create a login for each viewer:
--   CREATE ROLE grace LOGIN PASSWORD '…' IN ROLE fer_viewer;
DO $body$
BEGIN
    CREATE ROLE fer_viewer NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$body$;
GRANT USAGE ON SCHEMA fer TO fer_viewer;
GRANT SELECT ON
    fer.satisfaction_daily,
    fer.satisfaction_period,
    fer.satisfaction_change,
    fer.not_scored_daily,
    fer.newest_complete_day,
    fer.happy_by_hour,
    fer.camera_daily,
    fer.facility,
    fer.batch,
    fer.model_version,
    fer.schema_version -- by which fer-batch knows that the tables match it
TO fer_viewer;
DO $body$
BEGIN
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO fer_viewer', current_database());
END
$body$;
