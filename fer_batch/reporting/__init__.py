"""The report of a capture day: an HTML file with its chart, and the table on the console.

It only formats what the tables hold and the data checks return; `wording` has the sentences of
both. Figures and verdicts are decided in `satisfaction`, findings in `pipeline`.
"""
