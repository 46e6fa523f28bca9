"""`fer-batch demo`: the whole job on this machine, with synthetic faces, FER2013 or photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter, validators

from fer_batch.cli.common import load_settings
from fer_batch.cli.stack import GROUP
from fer_batch.errors import ConfigurationError

MAX_DAYS = 28


def register(app: App) -> None:
    """Add `demo`."""
    app.command(demo, group=GROUP)


def demo(
    *,
    days: Annotated[
        int,
        Parameter(
            help="Make so many days of synthetic faces, which one run of the DAG processes, and "
            "print how many intervals contain the true rate; at most 28.",
            validator=validators.Number(gte=1, lte=MAX_DAYS),
        ),
    ] = 1,
    images: Annotated[
        Path | None,
        Parameter(help="A folder of photographs to use instead, with one subfolder per facility."),
    ] = None,
    fer2013: Annotated[
        Path | None,
        Parameter(
            help="Use the Happy and Sad faces of FER2013's PrivateTest instead, and compare each "
            "result with its label: fer2013.tar.gz, fer2013.csv, icml_face_data.csv, or a folder "
            "with fer2013.tar.gz."
        ),
    ] = None,
    shop: Annotated[
        bool,
        Parameter(
            help="With `--fer2013`: mix faces of all expressions, by the FER+ votes in "
            "fer2013new.csv next to the archive, as in 200 shops of about 300 faces, and print how "
            "many intervals contain the true rate.",
            negative="",
        ),
    ] = False,
) -> int:
    """Run a day through Airflow on this machine and print the result.

    Starts PostgreSQL, an S3 server and Airflow, makes a day of synthetic faces in four shops, runs
    the DAG satisfaction_nightly on it and compares the tables with what the faces show.

    These servers are the demo's own, with --demo in the commands of `fer-batch stack`; the stack of
    `fer-batch stack up` and its data stay as they are.
    """
    from fer_batch.local.demo import run

    if images is not None and fer2013 is not None:
        raise ConfigurationError("--images and --fer2013 exclude each other", "Use one of them")
    if shop and fer2013 is None:
        raise ConfigurationError("--shop requires --fer2013", "Say where FER2013 is")
    if days > 1 and (images is not None or fer2013 is not None):
        raise ConfigurationError("--days is for synthetic faces only", "Leave it out")
    return run.run_demo(load_settings(), images=images, fer2013=fer2013, shop=shop, days=days)
