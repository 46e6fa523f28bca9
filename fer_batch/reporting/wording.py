"""The words for a summary: what its rates say, in whole percents.

Report and console use the same sentences. They never claim more than that a happy expression was
seen. Computing the figures is left to the package `satisfaction`, writing numbers and days to
formatting.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fer_batch.console import NO_VALUE
from fer_batch.findings.history import StoredFinding
from fer_batch.phrases import format_count
from fer_batch.reporting.formatting import (
    WEEKDAYS,
    format_day,
    format_days,
    format_interval,
    format_percent,
    round_up,
)

COVERED = (
    "The range covers three things: few visits, repeated pictures of one visit, and the known "
    "errors of the program."
)
NOT_COVERED = (
    "It does not cover faces that are much harder to read than those the program was tested on, "
    "that the detector finds happy faces more often than sad ones, or faces that the cameras never "
    "see. And an expression is not a feeling."
)
AUDIT_COMMAND = "fer-batch audit sample"
"""The command that begins an audit."""
CONCLUSIVE = ("satisfied", "not satisfied")
"""The verdicts that tell whether the target was met."""
NOT_CLEAR, NO_RATE = "not clear", "no rate"
_VERDICTS = {
    "satisfied": "above target",
    "not satisfied": "below target",
    "inconclusive": NOT_CLEAR,
}


def name_verdict(summary: Mapping[str, Any]) -> str:
    """The verdict of a summary in the words of report and console, such as `above target`.

    The summary of a day may have the additional column `is_closed`.
    """
    if summary.get("is_closed"):
        return "closed"
    if summary["happy_rate"] is None:
        return NO_RATE
    verdict: str = summary["verdict"]
    return _VERDICTS.get(verdict, verdict)


def describe_rate(summary: Mapping[str, Any]) -> str:
    """A sentence about the happy rate of a summary, for people who do not read tables.

    The summary of a day may have the additional columns `is_closed` and `publish_period`.
    """
    if summary.get("is_closed"):
        return "The facility was closed."
    if summary["happy_rate"] is None:
        return describe_no_rate(summary, summary.get("publish_period", "day"))
    rate, low, high = (
        format_percent(summary[name])
        for name in ("happy_rate", "happy_rate_low", "happy_rate_high")
    )
    if summary["method"] == "raw":
        return (
            f"About {rate} of 100 faces were called happy by the program. Its errors are unknown, "
            "so the true figure may be far from that."
        )
    return (
        f"About {rate} of 100 faces showed a happy expression; the true figure is very likely "
        f"between {low} and {high}."
    )


def describe_verdict(periods: Sequence[Mapping[str, Any]]) -> str:
    """A sentence about the target, from the shortest conclusive one of some periods of a facility.

    `periods` are summaries that end with the same day or before, the shortest period first, each
    with `period`, `first_day` and `last_day`. Without a conclusive one, the sentence says what
    would settle the question. It is empty without a target or a rate.
    """
    judged = [
        row
        for row in periods
        # A verdict of the method wilson is about another target.
        if row["verdict"] in (*CONCLUSIVE, "inconclusive") and row["method"] != "wilson"
    ]
    if not judged:
        return ""
    target = f"the target of {format_percent(judged[0]['target_rate'])} %"
    for row in judged:
        if row["verdict"] in CONCLUSIVE:
            side = "above" if row["verdict"] == "satisfied" else "below"
            return f"{name_period(row)} the happy rate was very likely {side} {target}."
    longest = judged[-1]
    audit = (
        f"{'an' if longest['audit_id'] is None else 'a larger'} audit of the facility's own faces"
    )
    if longest["faces_needed"] is None:
        return (
            f"Whether {target} was met is open. More faces alone would not settle it; {audit} "
            f"would narrow the range ({AUDIT_COMMAND})."
        )
    return (
        f"Whether {target} was met is open. About {round_up(longest['faces_needed']):,} faces "
        f"instead of {longest['faces']:,} would settle it at this rate, or {audit} "
        f"({AUDIT_COMMAND})."
    )


def name_period(summary: Mapping[str, Any]) -> str:
    """The period of a summary, as the start of a sentence."""
    days = format_days(summary["first_day"], summary["last_day"])
    return {
        "day": f"On {format_day(summary['last_day'])}",
        "week": f"In the week from {days}",
        "four weeks": f"In the four weeks from {days}",
    }[summary["period"]]


_OUTCOMES = {
    "no_face": "no face found",
    "empty": "empty file",
    "unreadable": "damaged file",
    "unsupported": "not a supported picture",
    "too_large": "too large",
    "too_small": "too small",
    "missing": "deleted before it was read",
    "archived": "archived by the storage",
    "refused": "the storage refused it",
    "decoder_crashed": "could not be decoded",
    "changed": "changed while it was read",
    "fetch_failed": "could not be fetched",
    "erased": "deleted on request",
}

_NOT_READ = ("missing", "archived", "refused")
_NOT_READ_SHARE = 0.2
"""A day is not complete if more images than that have these outcomes."""
_ANY_OUTCOME = "|".join(_OUTCOMES)
_OUTCOME_IDS = (
    # "40 of 90 images are decoder_crashed", and "40 no_face, 2 empty"
    (
        re.compile(rf"\bimages are ({_ANY_OUTCOME})\b"),
        lambda match: f"images: {name_outcome(match[1])}",
    ),
    (
        re.compile(rf"(?<=\d )({_ANY_OUTCOME})(?=,|;|:|\)| \(|$)"),
        lambda match: name_outcome(match[1]),
    ),
)
"""How data checks write outcomes; the same words in a key are left."""


def name_outcome(outcome: str) -> str:
    """Why an image was not scored, in a few words."""
    return _OUTCOMES.get(outcome, outcome.replace("_", " "))


def list_not_scored(summary: Mapping[str, Any]) -> list[str]:
    """The images of a day that were not scored, by reason, the most first."""
    counts = sorted(summary["not_scored"].items(), key=lambda each: (-each[1], each[0]))
    lines = [f"{format_count(images, 'image')}: {name_outcome(name)}" for name, images in counts]
    if summary["images_pending"]:
        lines.append(f"{format_count(summary['images_pending'], 'image')}: not read yet")
    return lines


def name_days(summary: Mapping[str, Any]) -> str:
    """The days of a summary, such as `Sat 28 Nov` or `week Mon 23 to Sun 29 Nov`."""
    if summary["period"] == "day":
        return format_day(summary["last_day"])
    return f"{summary['period']} {format_days(summary['first_day'], summary['last_day'])}"


def describe_week_change(change: Mapping[str, Any]) -> str:
    """A clear change of the happy rate against last week, such as `fell by about 12 points`."""
    since = "the week before"
    if change["period"] == "day":
        since = f"the {WEEKDAYS[change['capture_day'].weekday()]} before"
    return describe_change(
        change["happy_change"], change["happy_change_low"], change["happy_change_high"], since
    )


def describe_change(change: float, lowest: float, highest: float, since: str) -> str:
    """A clear change (-1 to 1) of a rate with its interval, against the period `since`."""
    points, low, high = (abs(round(100 * value)) for value in (change, lowest, highest))
    verb = "rose" if change > 0 else "fell"
    return (
        f"{verb} by about {format_count(points, 'point')} against {since} "
        f"(very likely {min(low, high)} to {max(low, high)})"
    )


def describe_batch(batch: Mapping[str, Any]) -> str:
    """Why a day was not read, as a sentence."""
    day, reason = format_day(batch["capture_day"]), batch["reason"] or "the reason is not known"
    what = {
        "no_permission": f"The images of {day} were not read: {reason}.",
        "not_ready": f"The upload of {day} was not finished: {reason}.",
        "failed": f"The images of {day} could not be listed: {reason}.",
    }
    return what[batch["status"]]


def describe_not_run(main: Mapping[str, Any] | None, *, has_days: bool) -> str:
    """That a day was not processed, and of which days the figures are instead.

    `main` is the summary whose rate is shown, if there is one. `has_days`: the facility has
    summaries of earlier days.
    """
    if main is not None:
        article = "" if main["period"] == "day" else "the "
        return f"Not processed yet; its figures are of {article}{name_days(main)}."
    if has_days:
        return "Not processed yet."
    return "No day of the last four weeks was processed."


Reason = Literal[
    "other method", "not complete", "no image", "no face", "by week", "too few faces or visits"
]


def find_reason(summary: Mapping[str, Any], publish_period: str) -> Reason:
    """Why the summary of a day has no rate, or why it may still change."""
    if summary["method"] == "wilson":
        return "other method"
    if not summary["is_complete"]:
        return "not complete"
    if not summary["images"]:
        return "no image"
    if not summary["faces"]:
        return "no face"
    return "by week" if publish_period == "week" else "too few faces or visits"


def name_reason(summary: Mapping[str, Any], publish_period: str) -> str:
    """Why a day has no rate, in a few words."""
    reason = find_reason(summary, publish_period)
    words = {
        "no image": "no image arrived",
        "no face": "no face found",
        "by week": "part of its week",
    }
    return words.get(reason, reason)


def describe_no_rate(
    summary: Mapping[str, Any], publish_period: str, *, is_without_week: bool = False
) -> str:
    """Why a day of a facility has no rate, or why its rate may still change, as a sentence.

    `is_without_week`: the facility has no rate of a week either.
    """
    day = format_day(summary["capture_day"])
    images = format_count(summary["images"], "image")
    week = "no week has a rate yet" if is_without_week else "single days have no rate"
    sentences: dict[Reason, str] = {
        "other method": "An earlier version of fer-batch counted this day by another method.",
        "not complete": f"{day} is not complete: {_explain_incomplete(summary)}.",
        "no image": f"No image arrived on {day}.",
        "no face": f"No face was found in the {images} of {day}.",
        "by week": f"It publishes by week, and {week} ({day}).",
        "too few faces or visits": f"Too few faces or visits on {day} to publish a rate.",
    }
    return sentences[find_reason(summary, publish_period)]


def _explain_incomplete(summary: Mapping[str, Any]) -> str:
    """Pending and unread images, or that the day was not over when its images were listed."""
    images = summary["images"]
    if summary["images_pending"]:
        pending = format_count(summary["images_pending"], "image")
        return f"{pending} of {images:,} could not be read yet"
    unread = sum(summary["not_scored"].get(name, 0) for name in _NOT_READ)
    if unread > _NOT_READ_SHARE * images:
        return f"{format_count(unread, 'image')} of {images:,} could not be read"
    return "its images have to be listed again after the day is over"


def describe_finding(finding: Mapping[str, Any]) -> str:
    """A finding of the data checks with its day."""
    meaning = finding["meaning"][0].upper() + finding["meaning"][1:]
    return f"{format_day(finding['capture_day'])}: {meaning}{format_details(finding)}"


def describe_open_finding(finding: StoredFinding) -> str:
    """A finding that is not closed: since when, what it is, and who takes care of it."""
    meaning = finding.meaning[0].upper() + finding.meaning[1:]
    details = format_details({"finding": finding.details})
    sentence = f"Since {format_day(finding.first_day)}: {meaning}{details}"
    if finding.acknowledged_at is None:
        return sentence
    on = format_day(finding.acknowledged_at.date())
    return (
        f"{sentence}. Acknowledged by {finding.acknowledged_by} on {on}: "
        f"{finding.acknowledged_comment}"
    )


def format_details(finding: Mapping[str, Any]) -> str:
    """The details of a finding in parentheses, with words instead of the ids of outcomes.

    Only their first line: the second one may name images.
    """
    details: str = (finding["finding"] or "").partition("\n")[0]
    for pattern, replacement in _OUTCOME_IDS:
        details = pattern.sub(replacement, details)
    return f" ({details})" if details else ""


def describe_revision(revised: Mapping[str, Any]) -> str:
    """How the summary of a day changed after it was first published, and why.

    `revised` is a summary with the columns of the one before it as `…_before`.
    """
    before, after = (
        format_interval(
            {
                "happy_rate": revised[name],
                "happy_rate_low": revised[f"{name}_low"],
                "happy_rate_high": revised[f"{name}_high"],
            }
        )
        for name in ("happy_rate_before", "happy_rate")
    )
    if before == after:
        rate = "no rate was published" if after == NO_VALUE else f"the rate stays {after}"
    elif before == NO_VALUE:
        rate = f"{after} is published"
    else:
        rate = f"{before} became {'suppressed' if after == NO_VALUE else after}"
    when = f"{format_day(revised['capture_day'])}, on {format_day(revised['created_at'].date())}"
    return f"{when}: {rate}. Reason: {_explain_revision(revised)}."


def _explain_revision(revised: Mapping[str, Any]) -> str:
    added = revised["images"] - revised["images_before"]
    erased = revised["not_scored"].get("erased", 0) - revised["not_scored_before"].get("erased", 0)
    pending = revised["images_pending_before"] - revised["images_pending"]
    if revised["reason"]:
        return str(revised["reason"])
    if revised["model_version"] != revised["model_version_before"]:
        return "another model version"
    if revised["audit_id"] != revised["audit_id_before"]:
        return "another audit of the facility's own faces"
    if erased > 0:
        return f"{format_count(erased, 'image')} deleted on request"
    if added > 0:
        return f"{format_count(added, 'image')} arrived late"
    if pending > 0:
        return f"{format_count(pending, 'image')} could be read by now"
    if added < 0 or pending < 0:
        return f"{format_count(max(-added, -pending), 'image')} can no longer be read"
    if revised["target_rate"] != revised["target_rate_before"]:
        return "another target"
    return "the day was summarized again with other settings"
