"""The words for a summary: what its rates say, in whole percents.

Report and console use the same sentences. They never claim more than that a happy expression was
seen. Computing the figures is left to the package `satisfaction`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NO_VALUE = "–"
MAX_Q_VALUE = 0.05
"""Changes with a larger q value are not mentioned: too many of them would be chance."""

COVERED = (
    "The range covers three things: few visits, repeated pictures of one visit, and the known "
    "errors of the program."
)
NOT_COVERED = (
    "It does not cover faces that are much harder to read than those the program was tested on, "
    "that the detector finds happy faces more often than sad ones, or faces that the cameras never "
    "see. And an expression is not a feeling."
)
_CONCLUSIVE = ("satisfied", "not satisfied")


def format_rate(summary: Mapping[str, Any], name: str) -> str:
    """A rate of a summary with its interval, such as `26 % (13 to 41)`; a dash if suppressed."""
    if summary[name] is None:
        return NO_VALUE
    rate, low, high = (
        format_percent(summary[key]) for key in (name, f"{name}_low", f"{name}_high")
    )
    return f"{rate} % ({low} to {high})"


def format_percent(share: float) -> str:
    """A share from 0 to 1 in whole percents, without the sign."""
    return f"{100 * share:.0f}"


def describe_rate(summary: Mapping[str, Any]) -> str:
    """A sentence about the happy rate of a summary, for people who do not read tables."""
    if summary["happy_rate"] is None:
        if summary["method"] == "wilson":
            return "An earlier version of fer-batch counted this day by another method."
        if summary["verdict"] == "pending":
            return "Not all images have arrived yet; a rate may follow."
        if not summary["is_complete"]:
            return "No rate is published yet: too few faces so far, and images are missing."
        return "No rate is published: too few faces or visits, or the facility publishes by week."
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
        if row["verdict"] in (*_CONCLUSIVE, "inconclusive") and row["method"] != "wilson"
    ]
    if not judged:
        return ""
    target = f"the target of {format_percent(judged[0]['target_rate'])} %"
    for row in judged:
        if row["verdict"] in _CONCLUSIVE:
            side = "above" if row["verdict"] == "satisfied" else "below"
            return f"{name_period(row)} the happy rate was very likely {side} {target}."
    longest = judged[-1]
    if longest["faces_needed"] is None:
        return (
            f"Whether {target} was met is open. More faces alone would not settle it; an audit of "
            "the facility's own faces would narrow the range."
        )
    return (
        f"Whether {target} was met is open. About {_round_up(longest['faces_needed']):,} faces "
        f"instead of {longest['faces']:,} would settle it at this rate, or an audit of the "
        "facility's own faces."
    )


def describe_change(change: Mapping[str, Any]) -> str:
    """A sentence about a change of the happy rate of a day; empty if it may well be chance."""
    q_value = change["happy_q_value"]
    if q_value is None or q_value > MAX_Q_VALUE:
        return ""
    points, low, high = (
        abs(round(100 * change[name]))
        for name in ("happy_change", "happy_change_low", "happy_change_high")
    )
    verb = "rose" if change["happy_change"] > 0 else "fell"
    since = {"period before": "the day before", "week before": "the same weekday a week ago"}
    return (
        f"It {verb} by about {points} points against {since[change['comparison']]} "
        f"(very likely between {min(low, high)} and {max(low, high)})."
    )


def name_period(summary: Mapping[str, Any]) -> str:
    """The period of a summary, as the start of a sentence."""
    days = f"from {summary['first_day']} to {summary['last_day']}"
    return {
        "day": "On this day",
        "week": f"In the week {days}",
        "four weeks": f"In the four weeks {days}",
    }[summary["period"]]


def _round_up(number: int) -> int:
    """Rounded up to two digits, because more would claim too much."""
    step: int = 10 ** max(0, len(str(number)) - 2)
    return -(-number // step) * step
