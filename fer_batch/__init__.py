"""fer-batch: did the customers of each facility leave with a happy expression?

A nightly batch. Images of a facility's capture day are listed in S3, planned into shards,
scored by a CNN and summarized in Postgres. Each package holds one subject, and a layer imports
only the layers below it:

    cli                                          the command
    pipeline, local                              the steps of a night; local servers and demo
    training, predict, reporting, deletion       CNN training; single images; the report; deletion
    model, satisfaction                          the CNN; from rows to figures
    storage, database                            S3; PostgreSQL
    imaging, facilities                          from bytes to crops; the facility registry
    settings, errors, log, records, resources, concurrency, testing    used by all
"""

__version__ = "0.1.0"
