"""The local stack and the demo: `stack` (servers from wheels), `demo` (a day with known results).

Both run on one machine only and need the extra `local`. Nothing else of fer-batch depends on them:
with settings that name other servers, everything else works without this package.
"""
