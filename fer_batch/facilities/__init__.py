"""The facility registry: which facilities exist, the format of their keys, and the permissions.

`loading` loads the registry, `registry_file` reads its TOML file, `registry` validates an entry,
`key_template` turns a capture day into a key prefix,
`name_template` reads camera and capture time from the rest of a key.
The registry's copy in the database is left to `database`, reading the images to `storage`.
"""
