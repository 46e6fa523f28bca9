"""The steps of a night, one module each: listing, planning, scoring, checks; `nightly` joins them.

Scoring runs in a separate process: `supervisor` starts and watches it, `jobs` defines the messages
between the processes, `in_flight` registers the images being decoded. `comparison` runs two CNNs on
one day and stores nothing. Steps share data only through the tables. SQL of the ledger is left to
`database`, the CNN to `model`, figures to `satisfaction`, scheduling and retries to Airflow.
"""
