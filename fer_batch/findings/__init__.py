"""Findings of the data checks, with their history.

A finding is a problem of a facility: it is opened when a check first finds it, stays the same while
further nights show it, and is closed by a run or a person. Running the checks is left to
`pipeline.checks`, the words for a finding to `reporting`.
"""
