"""The facility registry: which facilities exist, the format of their keys, and the permissions.

`loading` loads the registry, `registry_file` reads its TOML file, `registry` validates an entry,
`audience` determines who may not be read at all, `key_template` turns a capture day into a key
prefix, `key_overlaps` finds templates that share keys, `name_template` reads camera and capture
time from the rest of a key, `ownership` finds the facility of a key.
The registry's copy in the database is left to `database`, reading the images to `storage`.
"""
