"""The steps of the nightly job, and `run`, which performs them all without Airflow."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group, Parameter, validators

from fer_batch.cli.common import Json, load_settings, print_json, show
from fer_batch.errors import EXIT_FINDINGS, ConfigurationError

if TYPE_CHECKING:
    from fer_batch.pipeline.nightly import Run
    from fer_batch.records import Shard
    from fer_batch.settings import Settings

GROUP = Group("The nightly job", sort_key=1)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Selected:
    """The facilities and days of a step, and options of the run."""

    capture_day: Annotated[date, Parameter(help="The capture day, as YYYY-MM-DD.")]
    facility: Annotated[
        tuple[str, ...], Parameter(help="A facility id; may be repeated. Default: all.")
    ] = ()
    time_zone: Annotated[str | None, Parameter(help="Only the facilities of this time zone.")] = (
        None
    )
    lookback_days: Annotated[
        int,
        Parameter(
            help="Number of earlier days that belong to the run too, for late images; default: 0.",
            validator=validators.Number(gte=0),
        ),
    ] = 0
    run_id: Annotated[
        str | None,
        Parameter(help="The name of the run in the tables; default: by-hand/TIME."),
    ] = None
    model_version: Annotated[
        str | None,
        Parameter(help="The model version, or its first characters. It must be the active one."),
    ] = None
    rescore: Annotated[
        bool,
        Parameter(
            help="Score finished images again. Only `run`, `plan`, `plan-shards` and `score` do so."
        ),
    ] = False
    force: Annotated[
        bool, Parameter(help="Accept a capture day that has not begun yet, for a test.")
    ] = False

    def open_run(self) -> Run:
        """Load the settings and open the run."""
        from fer_batch.pipeline.nightly import Run
        from fer_batch.pipeline.selection import Selection

        return Run(
            load_settings(),
            Selection(
                run_id=self.run_id or f"by-hand/{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
                capture_day=self.capture_day,
                facility_ids=self.facility,
                time_zone=self.time_zone,
                lookback_days=self.lookback_days,
                model_version=self.model_version,
                rescore=self.rescore,
                force=self.force,
            ),
        )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SelectedDays(Selected):
    """As `Selected`, or a range of days whose summaries are re-estimated."""

    capture_day: Annotated[
        date, Parameter(name=("--capture-day", "--to"), help="The capture day, as YYYY-MM-DD.")
    ]
    from_day: Annotated[
        date | None,
        Parameter(
            name="--from",
            help="Re-estimate the days from this one to --to, each from the stored results of "
            "the model version of its newest summary.",
        ),
    ] = None


def register(app: App) -> None:
    """Add the steps of the nightly job, `run` and `plan`."""
    app.command(run, group=GROUP)
    app.command(plan, group=GROUP)
    app.command(list_images, group=GROUP)
    app.command(plan_shards, group=GROUP)
    app.command(score, group=GROUP)
    app.command(summarize, group=GROUP)
    app.command(check_data, group=GROUP)
    app.command(report, group=GROUP)


def run(selected: Selected, *, json: Json = False) -> int:
    """Run all steps for a day without Airflow.

    If a step fails, the others are done as in Airflow: without a listing nothing is scored, but
    summaries, checks, report, export and digests are always done. The last line is the path of the
    report. The exit code is that of the failure.

    Unlike the DAG, it lists no earlier days by default. A nightly job without Airflow needs
    `--lookback-days 3`, which scores late images and publishes days that stayed incomplete.
    """
    from fer_batch.pipeline.whole_run import run_steps
    from fer_batch.reporting import report
    from fer_batch.satisfaction.figures import hide_counts

    night_run = selected.open_run()
    night = run_steps(night_run)
    if json:
        summaries = None if night.summaries is None else hide_counts(night.summaries)
        found = None if night.findings is None else _hide_examples(night.findings)
        print_json({"summaries": summaries, "findings": found})
    else:
        if night.summaries is not None:
            report.print_summaries(night.summaries, facilities=night_run.facilities)
        if night.findings is not None:
            show("Findings", night.findings, as_json=False)
        if night.report is not None:
            sys.stdout.write(f"\nreport      {_name_report(night_run.settings, night.report)}\n")
    if night.failure is not None:
        raise night.failure
    return _compute_exit_code(night.findings or ())


def _name_report(settings: Settings, path: Path) -> str:
    """The path of the report, and its URL if it is published."""
    url = settings.report_url
    published = "" if url is None else f", published as {url.rstrip('/')}/{path.name}"
    return f"{path.resolve()}{published}"


def plan(selected: Selected, *, json: Json = False) -> int:
    """Preview a run: images, images left to score, bytes, expected time. Writes nothing.

    Without a database, every image counts as left to score. For a facility without images, the
    preview says how many its last days have, and what lies near its prefix. The exit code is 3 if
    listing a facility fails, if its prefix seems to be misspelled, or if its entry in the registry
    is invalid.
    """
    from fer_batch.pipeline import day_survey, planning

    night_run = selected.open_run()
    previews = night_run.preview_images()
    surveys = day_survey.survey_empty_facilities(night_run.settings, night_run.facilities, previews)
    rows = []
    for preview in previews:
        survey = surveys.get(preview.batch.facility_id)
        facility = night_run.facilities[preview.batch.facility_id]
        gap = facility.describe_gap(night_run.settings.strict_registry_from)
        counts = {
            "images": preview.images,
            "left": preview.new_images,
            "bytes": preview.bytes,
            "expected_s": round(
                planning.estimate_seconds(preview.new_images, facility.image_kind), 3
            ),
        }
        rows.append(
            {
                "facility": preview.batch.facility_id,
                "capture_day": preview.batch.capture_day,
                **(counts if preview.status == "listed" else dict.fromkeys(counts)),
                "problem": preview.reason or "; ".join(filter(None, (str(survey or ""), gap))),
            }
        )
    rows += [
        dict.fromkeys(rows[0])
        | {
            "facility": invalid.facility_id,
            "capture_day": selected.capture_day,
            "problem": invalid.reason,
        }
        for invalid in night_run.invalid_facilities.values()
    ]
    show("Preview of the run", rows, json)
    has_failed = any(preview.status == "failed" for preview in previews) or any(
        survey.is_misspelled for survey in surveys.values()
    )
    return EXIT_FINDINGS if has_failed or night_run.invalid_facilities else 0


def list_images(selected: Selected, *, json: Json = False) -> None:
    """List the images of each facility and day in S3 and store them in the table `image`."""
    night_run = selected.open_run()
    night_run.sync_facilities()  # a batch references a facility in the database
    rows = []
    for listed in night_run.list_images():
        counts = {
            "images": listed.images,
            "new": listed.new_images,
            "excluded": listed.excluded,
            "bytes": listed.bytes,
        }
        rows.append(
            {
                "facility": listed.batch.facility_id,
                "capture_day": listed.batch.capture_day,
                "status": listed.status,
                **(counts if listed.status == "listed" else dict.fromkeys(counts)),
                "reason": listed.reason,
            }
        )
    rows += [
        dict.fromkeys(rows[0])
        | {
            "facility": invalid.facility_id,
            "capture_day": selected.capture_day,
            "status": "invalid",
            "reason": invalid.reason,
        }
        for invalid in night_run.invalid_facilities.values()
    ]
    show("Listed", rows, json)


def plan_shards(selected: Selected, *, json: Json = False) -> None:
    """Split the listed images without a result into shards."""
    from fer_batch.pipeline.jobs import SHARDS, dump_json

    planned = selected.open_run().plan_shards()
    if json:
        print_json(dump_json(SHARDS, planned))
    else:
        show("Shards", [{"shard": s.name, "images": s.image_count} for s in planned], False)


def score(
    selected: Selected,
    *,
    shard: Annotated[
        Path | None,
        Parameter(
            allow_leading_hyphen=True,
            help="Score only the shard in this JSON file, one of those that `plan-shards --json` "
            "prints; - reads stdin.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Score all images left to score, or one shard."""
    from fer_batch.pipeline.whole_run import score_shards

    night_run = selected.open_run()
    shards = night_run.plan_shards() if shard is None else [_read_shard(shard)]
    done, error = score_shards(night_run, shards)
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
    if error is not None:
        raise error


def _read_shard(file: Path) -> Shard:
    """The shard in a JSON file, or on stdin if it is `-`.

    Raises ConfigurationError if it is invalid, and OSError.
    """
    from pydantic import ValidationError

    from fer_batch.pipeline.jobs import SHARD

    is_stdin = str(file) == "-"
    data = sys.stdin.buffer.read() if is_stdin else file.read_bytes()
    try:
        return SHARD.validate_json(data)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'shard'}: {e['msg']}" for e in error.errors()
        )
        place = "on stdin" if is_stdin else f"in {file}"
        raise ConfigurationError(
            f"the shard {place} is invalid: {problems}", "Use a shard from `plan-shards --json`"
        ) from None


def summarize(selected: SelectedDays, *, json: Json = False) -> None:
    """Write the summaries that changed; print the latest one of each facility and day.

    With --from and --to, old days are re-estimated from the faces that are still stored, for
    example after an upgrade that changed the method. Images are not read. An audit that was
    finished later corrects the weeks and four weeks that are wholly within the range: begin on a
    Monday and end on a Sunday.
    """
    from fer_batch.reporting import report
    from fer_batch.satisfaction.figures import hide_counts

    night_run = selected.open_run()
    summaries = (
        night_run.summarize()
        if selected.from_day is None
        else night_run.estimate_anew(selected.from_day)
    )
    if json:
        print_json(hide_counts(summaries))
    else:
        report.print_summaries(summaries, facilities=night_run.facilities)


def check_data(selected: Selected, *, json: Json = False) -> int:
    """Run the data checks and store what they find. The exit code is 3 if a check finds an error.

    With --json, the examples, which may name images, are only logged.
    """
    from fer_batch.log import get_logger

    findings = selected.open_run().check_data()
    if json:
        log = get_logger(__name__)
        for finding in findings:
            log_finding = log.error if finding["severity"] == "error" else log.warning
            log_finding("finding", **finding)
    show("Findings", _hide_examples(findings) if json else findings, json)
    return _compute_exit_code(findings)


def report(selected: Selected, *, json: Json = False) -> None:
    """Write the report of the day, about all facilities, as HTML; print its path.

    It shows the findings that the newest runs of `check-data` have stored. Those of this run are
    found again first, unless `check-data` had the same --run-id. If FER_REPORT_URL is set, the
    files are published there too.
    """
    night_run = selected.open_run()
    path = night_run.report().resolve()
    if json:
        print_json({"report": str(path), "new_findings": night_run.list_new_findings()})
    else:
        sys.stdout.write(f"{path}\n")


def _hide_examples(findings: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return findings without examples: the result of a task is kept by Airflow."""
    return [{n: value for n, value in row.items() if n != "example"} for row in findings]


def _compute_exit_code(findings: Sequence[Mapping[str, object]]) -> int:
    return EXIT_FINDINGS if any(f["severity"] == "error" for f in findings) else 0
