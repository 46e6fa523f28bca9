"""The page "Satisfaction" in the Airflow UI: shows the reports of fer-batch, and nothing else.

A plugin of Airflow, in a wheel of its own. `plugin` adds the entry in the navigation and mounts
`app`, which answers requests; `store` reads the report files from a folder or S3; `link` is the
button of a task that opens its report. It imports nothing of fer-batch. What they share is the
names of the report files (`store.FILE_NAME`) and the settings `FER_REPORT_…`.
"""
