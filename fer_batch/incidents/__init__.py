"""Incidents of the nightly job, and the people who are told of them.

An incident is a run that failed or is late, or a run that opened findings. `incident` decides what
a message says, `sending` sends it by mail and to chats. Noticing incidents is left to the DAGs,
what happens outside Airflow to the package `freshness`.
"""
