"""Audits: people label a random sample of a facility's own faces.

`sampling` draws the faces, `labeling` reads and stores labels, `agreement` compares two raters,
`refreshing` scores the labeled faces with another model version, `finishing` puts the labels into
force, `drift` describes the faces of the window for comparison with later days. The tables are
those of migration 0013. Which summaries an audit corrects is decided in `satisfaction.audits`;
deleting faces and labels is left to `deletion`.
"""
