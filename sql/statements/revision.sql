SELECT version_num FROM fer.schema_version
