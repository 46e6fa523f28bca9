"""Permanent deletion of rows per image: `retention` by age, `erasure` on request.

An erasure is also logged outside the database (`erasure_log`) and repeated after a restore
(`replay`).

Both record what they deleted, so that no later listing restores it. Objects in S3 are never
deleted here: they belong to whoever uploaded them. Skipping erased images in a listing is left to
`database`, the new summary of an erased day to `satisfaction`, confirmation to `cli`.
"""
