"""Keep Python's garbage collector away from what lives as long as the session.

Imported modules and collected tests are a million objects. A full collection visits each of them:
that takes a third of a second, and many of them happen in a session.
"""

from __future__ import annotations

import gc

gc.disable()  # importing and collecting tests leaves next to no garbage


def pytest_collection_finish() -> None:
    gc.freeze()  # what exists by now is not visited any more
    gc.enable()
