"""Failpoints: named points in the code at which a test can kill the process.

Nothing here takes effect unless a test sets its environment variable. Test data and fixtures are
left to `tests/`.
"""
