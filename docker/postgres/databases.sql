-- Three databases, each with its owner: Airflow's, Celery's, and that of the results. fer_nightly is
-- the login of the nightly job and fer_maintenance that of the DAG satisfaction_maintenance;
-- `fer-batch db grant` gives them their roles.
-- The image runs this once, on an empty data folder. A password that is not set is a syntax error.
\set ON_ERROR_STOP on
\getenv airflow_password AIRFLOW_DB_PASSWORD
\getenv celery_password CELERY_DB_PASSWORD
\getenv fer_password FER_DB_PASSWORD
\getenv fer_nightly_password FER_NIGHTLY_DB_PASSWORD
\getenv fer_maintenance_password FER_MAINTENANCE_DB_PASSWORD
CREATE ROLE airflow LOGIN PASSWORD :'airflow_password';
CREATE ROLE celery LOGIN PASSWORD :'celery_password';
CREATE ROLE fer LOGIN CREATEROLE PASSWORD :'fer_password';
CREATE ROLE fer_nightly LOGIN PASSWORD :'fer_nightly_password';
CREATE ROLE fer_maintenance LOGIN PASSWORD :'fer_maintenance_password';
CREATE DATABASE airflow OWNER airflow TEMPLATE template0 ENCODING 'UTF8';
CREATE DATABASE celery OWNER celery TEMPLATE template0 ENCODING 'UTF8';
CREATE DATABASE fer OWNER fer TEMPLATE template0 ENCODING 'UTF8';
REVOKE CONNECT, TEMPORARY ON DATABASE airflow, celery, fer FROM PUBLIC;
