"""The steps of the nightly job, and `run`, which does them all without Airflow."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group, Parameter, validators

from fer_batch.cli.common import Json, print_json, settings, show
from fer_batch.errors import EXIT_FINDINGS, ConfigurationError, FerError

if TYPE_CHECKING:
    from fer_batch.nightly import Run
    from fer_batch.records import Shard

GROUP = Group("The nightly job", sort_key=1)
IMAGES_PER_S = {"crops": 1000, "frames": 60}
"""A rough pace of two cores, for what `plan` expects."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Selected:
    """What a step is about."""

    capture_day: Annotated[date, Parameter(help="The day, as YYYY-MM-DD.")]
    facility: Annotated[
        tuple[str, ...], Parameter(help="A facility id; may be repeated. None means all.")
    ] = ()
    time_zone: Annotated[str | None, Parameter(help="Only the facilities of this time zone.")] = (
        None
    )
    lookback_days: Annotated[
        int,
        Parameter(
            help="So many days before it are looked at again for late images.",
            validator=validators.Number(gte=0),
        ),
    ] = 0
    run_id: Annotated[
        str | None,
        Parameter(help="The name of the run in the tables; none means by-hand and the time."),
    ] = None
    model_version: Annotated[
        str | None, Parameter(help="Must be in use; its first characters are enough.")
    ] = None
    rescore: Annotated[bool, Parameter(help="Score finished images once more.")] = False

    def open(self) -> Run:
        from fer_batch.nightly import Run, Selection

        return Run(
            settings(),
            Selection(
                run_id=self.run_id or f"by-hand/{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
                capture_day=self.capture_day,
                facility_ids=self.facility,
                time_zone=self.time_zone,
                lookback_days=self.lookback_days,
                model_version=self.model_version,
                rescore=self.rescore,
            ),
        )


def register(app: App) -> None:
    app.command(run, group=GROUP)
    app.command(plan, group=GROUP)
    app.command(list_images, name="list", group=GROUP)
    app.command(shards, group=GROUP)
    app.command(score, group=GROUP)
    app.command(summarize, group=GROUP)
    app.command(checks, group=GROUP)
    app.command(report, group=GROUP)
    app.command(worker, show=False)


def run(selected: Selected, *, json: Json = False) -> int:
    """Do a whole day without Airflow, by the same code."""
    from fer_batch import nightly, report

    summaries, findings = nightly.run_all(selected.open())
    if json:
        print_json({"summaries": _published(summaries), "findings": findings})
    else:
        report.print_summaries(summaries)
        show("Findings", findings, as_json=False)
    return _exit_code(findings)


def plan(selected: Selected, *, json: Json = False) -> int:
    """Say what a run would do: images, those left to score, bytes, expected time. Writes nothing.

    Without a database, every image counts as left. Ends with exit code 3 if a facility could not
    be listed.
    """
    from fer_batch import listing

    job = selected.open()
    finished = job.count_finished()
    now = datetime.now(UTC)
    previews = listing.preview(job.settings, job.facilities, job.batches, now)
    rows = []
    for preview in previews:
        left = max(preview.images - finished.get(preview.batch, 0), 0)
        kind = job.facilities[preview.batch.facility_id].image_kind
        rows.append(
            {
                "facility": preview.batch.facility_id,
                "capture_day": preview.batch.capture_day,
                "images": preview.images,
                "left": left,
                "bytes": preview.bytes,
                "expected_s": round(left / IMAGES_PER_S[kind], 3),
                "problem": preview.reason,
            }
        )
    show("What a run would do", rows, json)
    return EXIT_FINDINGS if any(preview.status == "failed" for preview in previews) else 0


def list_images(selected: Selected, *, json: Json = False) -> None:
    """List the images of each facility and day into the ledger."""
    job = selected.open()
    job.sync_facilities()  # a batch belongs to a facility of the tables
    rows = [
        {
            "facility": listed.batch.facility_id,
            "capture_day": listed.batch.capture_day,
            "status": listed.status,
            "images": listed.images,
            "new": listed.new_images,
            "bytes": listed.bytes,
            "reason": listed.reason,
        }
        for listed in job.list_images()
    ]
    show("Listed", rows, json)


def shards(selected: Selected, *, json: Json = False) -> None:
    """Cut the listed images without a result into shards."""
    from fer_batch.jobs import SHARDS, as_json

    planned = selected.open().plan_shards()
    if json:
        print_json(as_json(SHARDS, planned))
    else:
        show("Shards", [{"shard": s.name, "images": s.image_count} for s in planned], False)


def score(selected: Selected, *, json: Json = False) -> None:
    """Score the shard given as JSON on stdin, or, without input, all that is left."""
    from fer_batch.nightly import score_all

    job = selected.open()
    given = "" if sys.stdin.isatty() else sys.stdin.read()
    todo = [_shard(given)] if given.strip() else job.plan_shards()
    done, failed = score_all(job, todo)
    rows = [
        {
            "shard": shard.name,
            "images": result.image_count,
            "seconds": round(result.seconds, 1),
            "outcomes": dict(result.outcomes),
        }
        for shard, result in done
    ]
    show("Scored", rows, json)
    if failed is not None:
        raise failed


def _shard(text: str) -> Shard:
    from pydantic import ValidationError

    from fer_batch.jobs import SHARD

    try:
        return SHARD.validate_json(text)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'shard'}: {e['msg']}" for e in error.errors()
        )
        raise ConfigurationError(
            f"the shard on stdin is wrong: {wrong}", "Give one that `fer-batch shards --json` made"
        ) from None


def summarize(selected: Selected, *, json: Json = False) -> None:
    """Write the summaries that changed, and print the newest of each facility and day."""
    from fer_batch import report

    summaries = selected.open().summarize()
    if json:
        print_json(_published(summaries))
    else:
        report.print_summaries(summaries)


def checks(selected: Selected, *, json: Json = False) -> int:
    """Run the data checks; ends with exit code 3 if one of them finds an error."""
    from fer_batch.log import logger

    findings = selected.open().check()
    if json:
        log = logger(__name__)
        for finding in findings:
            say = log.error if finding["severity"] == "error" else log.warning
            say("finding", **finding)
    show("Findings", findings, json)
    return _exit_code(findings)


def report(selected: Selected, *, json: Json = False) -> None:
    """Write the report of the day as one HTML file, and print its path."""
    path = selected.open().report().resolve()
    if json:
        print_json({"report": str(path)})
    else:
        sys.stdout.write(f"{path}\n")


def worker(*, announce: Path, parent: int) -> int:
    """Score the job on stdin; started by `score`, not by people."""
    from fer_batch import scoring
    from fer_batch import worker as module
    from fer_batch.images import quiet_decoders

    module.die_with_parent(parent)
    with quiet_decoders():
        try:
            return scoring.run_job(settings(), sys.stdin.read(), announce)
        except FerError as error:
            sys.stdout.write(str(error))  # for the process that started this one
            return error.exit_code


def _published(summaries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Summaries as analysts may see them: how few faces divide is nobody's business."""
    hidden = dict.fromkeys(("happy", "sad", "uncertain", "neither"))
    return [{**row, **(hidden if row["verdict"] == "suppressed" else {})} for row in summaries]


def _exit_code(findings: Sequence[Mapping[str, object]]) -> int:
    return EXIT_FINDINGS if any(f["severity"] == "error" for f in findings) else 0
