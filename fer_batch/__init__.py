"""fer-batch: did the customers of each facility leave with a happy expression?

A nightly batch. Images of a facility's capture day are listed in S3, planned into shards,
scored by a CNN and summarised in Postgres. Each step is one module of this package; data
flows through them in that order and never back.
"""

__version__ = "0.1.0"
