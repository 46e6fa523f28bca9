"""Whether the nightly job has run, for a monitor outside Airflow: `fer-batch freshness`.

`expectations` decides which summary a facility should have by now, `reading` reads those that it
has, from views only, `airflow` asks Airflow about its DAGs and its scheduler, `checking` puts them
together, and `metrics` writes the result for Prometheus. `airflow_history` is part of `fer-batch
check`. Nothing is repaired or started.
"""
