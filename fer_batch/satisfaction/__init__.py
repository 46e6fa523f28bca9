"""From result rows to published figures: rates, intervals, verdicts, revisions, periods, changes.

`estimator` and `change` are arithmetic, `figures` decides what is published; none of them has any
input or output. `revisions` counts days in the database and writes their summaries, `periods` those
of weeks and four weeks, `comparisons` the changes. How a summary is shown is left to `reporting`.
"""
