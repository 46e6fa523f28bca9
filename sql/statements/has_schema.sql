SELECT to_regclass('fer.schema_version') IS NOT NULL
