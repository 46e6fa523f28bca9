"""From result rows to published figures: counts, shares, intervals, verdicts, revisions.

`figures` is arithmetic without any input or output; `revisions` counts in the database and
writes summaries. How a summary is shown is left to `reporting`.
"""
