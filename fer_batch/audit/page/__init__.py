"""The page on which people label the faces of an audit, served on this machine only.

`session` decides which face is shown and stores labels, `app` is the HTTP application with its
guard, `server` runs it until Ctrl-C. `static` has the page, its style sheet and its script. The
network's answers never reach this package: it knows faces and labels only.
"""
