"""Permanent deletion: of what has expired (`maintenance`), and on request (`erasure`).

Maintenance deletes rows per image (`retention`), other rows (`expired_rows`) and files
(`expired_files`) that are older than their periods; `overdue` tells that it has not run.
An erasure is also logged outside the database (`erasure_log`) and repeated after a restore
(`replay`).

Both record which rows they deleted, so that no later listing restores them. Images in S3 are never
deleted here: they belong to whoever uploaded them. Skipping erased images in a listing is left to
`database`, the new summary of an erased day to `satisfaction`, confirmation to `cli`.
"""
