"""The hidden command `worker`: a scoring process, which `score` starts."""

from __future__ import annotations

import sys
from pathlib import Path

from cyclopts import App

from fer_batch.cli.common import load_settings
from fer_batch.errors import FerError


def register(app: App) -> None:
    """Add `worker`."""
    app.command(worker, show=False)


def worker(*, in_flight: Path, parent: int) -> int:
    """Score the job on stdin. Started by `score`, not by users."""
    from fer_batch.imaging.decoding import silence_decoders
    from fer_batch.pipeline import processes, scoring

    processes.die_with_parent(parent)
    with silence_decoders():
        try:
            scoring.run_job(load_settings(), sys.stdin.read(), in_flight)
        except FerError as error:
            sys.stdout.write(str(error))  # for the parent process
            return error.exit_code
    return 0
