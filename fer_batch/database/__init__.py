"""PostgreSQL: connections, the schema `fer`, the ledger of images, and their results.

Modules above this package get connections, transactions and error translation from
`connections`, load their SQL with `statements`, and name tables through `tables`. What the
numbers mean is left to `satisfaction`, which rows may be deleted to `deletion`, and when a step
runs to `pipeline`.
"""
