"""What a bucket does with images as time passes: its lifecycle rules, and versions that it keeps.

In a bucket with versioning, a deleted image is only hidden. Asking needs more rights than a run
has (`s3:GetBucketVersioning`, `s3:GetLifecycleConfiguration`). `judge` compares what S3 tells with
what a facility needs; it sends no request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from fer_batch.phrases import format_count
from fer_batch.storage.listing_pages import ARCHIVE_CLASSES
from fer_batch.storage.s3_errors import BOTO3_ERRORS, describe_cause, get_code, get_status

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Rule = Mapping[str, Any]
"""A lifecycle rule as boto3 returns it."""

_UNKNOWN_REQUEST = frozenset({400, 404, 405, 501})
"""What servers answer that do not implement a request."""


@dataclass(frozen=True, slots=True)
class BucketRules:
    """What S3 tells: the lifecycle rules, and whether the bucket has or had versioning.

    `problem` says why the rules are not known, `versioning_problem` why the versioning is not;
    empty: they are.
    """

    rules: Sequence[Rule] = ()
    is_versioned: bool = False
    problem: str = ""
    versioning_problem: str = ""


@dataclass(frozen=True, slots=True)
class ImageNeeds:
    """What a facility needs: how long its images must exist, and how long they are of use.

    `beginnings` are what their keys begin with. A night lists images of `lookback_days` earlier
    days. `retention_days` is the setting FER_RETENTION_DAYS.
    """

    beginnings: Sequence[str]
    lookback_days: int
    retention_days: int

    @property
    def scored_days(self) -> int:
        """Days after its upload at which an image is surely scored.

        An image of the first minute of a day is listed for the last time in the night that is
        `lookback_days` + 1 days later, and that run ends during its day.
        """
        return self.lookback_days + 2


def read_rules(client: S3Client, bucket: str) -> BucketRules:
    """What S3 tells about a bucket. An error of S3 is a problem."""
    is_versioned, versioning_problem = False, ""
    try:
        is_versioned = "Status" in client.get_bucket_versioning(Bucket=bucket)
    except BOTO3_ERRORS as error:
        # A server that does not implement the request has no versions.
        if get_status(error) not in _UNKNOWN_REQUEST:
            versioning_problem = _explain(error, "s3:GetBucketVersioning")
    rules: Sequence[Rule] = ()
    problem = ""
    try:
        rules = client.get_bucket_lifecycle_configuration(Bucket=bucket).get("Rules", [])
    except BOTO3_ERRORS as error:
        if get_code(error) != "NoSuchLifecycleConfiguration":
            problem = _explain(error, "s3:GetLifecycleConfiguration")
    return BucketRules(rules, is_versioned, problem, versioning_problem)


def _explain(error: Exception, right: str) -> str:
    if get_status(error) == 403:
        return f"the S3 account has no {right}"
    if get_status(error) in _UNKNOWN_REQUEST:
        return "the S3 server does not implement them"
    return describe_cause(error)


def judge(told: BucketRules, needs: ImageNeeds, today: date) -> list[str]:
    """What does not fit the facility's images, each as a clause; empty: all fits, or is not known.

    Images must be deleted one day, not before they are scored, and not long after their rows. Of
    several rules the first to act counts. A rule with a filter by tag or size, or with a longer
    prefix, acts on some images only.
    """
    if told.problem:
        return []
    enabled = [rule for rule in told.rules if rule.get("Status") == "Enabled"]
    faults: dict[str, None] = {}  # in their order, each once
    for beginning in needs.beginnings:
        for fault in _judge_images(enabled, beginning, needs, today):
            faults[fault] = None
        if told.is_versioned and (fault := _judge_versions(enabled, beginning, needs)):
            faults[fault] = None
    return list(faults)


def _judge_images(
    rules: Sequence[Rule], beginning: str, needs: ImageNeeds, today: date
) -> Iterator[str]:
    ages = [
        age
        for rule in rules
        if _covers(rule, beginning)
        and (age := _find_age(rule.get("Expiration", {}), today)) is not None
    ]
    if not ages:
        where = f"below {beginning!r}" if beginning else "of the bucket"
        yield (
            f"no lifecycle rule deletes all images {where} after some days: add one, see "
            "docs/privacy.md"
        )
    elif min(ages) > needs.retention_days:
        yield (
            f"the lifecycle rules keep images for {min(ages)} days, but FER_RETENTION_DAYS is "
            f"{needs.retention_days}: after that no row leads to them and no run reads them"
        )
    for rule in rules:
        if _touches(rule, beginning):
            yield from _find_early_actions(rule, beginning, needs)


def _find_early_actions(rule: Rule, beginning: str, needs: ImageNeeds) -> Iterator[str]:
    """What a rule does to images before they are surely scored."""
    actions = [("deletes", rule.get("Expiration", {}))]
    actions += [
        (f"moves to {each['StorageClass']}, where they cannot be read,", each)
        for each in rule.get("Transitions", [])
        if each.get("StorageClass") in ARCHIVE_CLASSES
    ]
    name = f"the lifecycle rule {rule['ID']!r}" if rule.get("ID") else "a lifecycle rule"
    which = "images" if _covers(rule, beginning) else "some images"
    for verb, action in actions:
        if "Date" in action:
            when = f"from {_read_date(action):%Y-%m-%d} on, new ones too: give it Days, not a Date"
        elif "Days" in action and action["Days"] < needs.scored_days:
            when = (
                f"after {format_count(action['Days'], 'day')}. They are "
                f"surely scored after {needs.scored_days} days: a lookback of "
                f"{needs.lookback_days} days, and the night"
            )
        else:
            continue
        yield f"{name} {verb} {which} {when}"


def _judge_versions(rules: Sequence[Rule], beginning: str, needs: ImageNeeds) -> str:
    """Why the bucket keeps old versions of images for too long; empty: it does not."""
    actions = [
        rule["NoncurrentVersionExpiration"]
        for rule in rules
        if "NoncurrentVersionExpiration" in rule and _covers(rule, beginning)
    ]
    ages = [
        action.get("NoncurrentDays", 0)
        for action in actions
        if not action.get("NewerNoncurrentVersions")  # it keeps so many for good
    ]
    if ages and min(ages) <= needs.retention_days:
        return ""
    how_long = f"for {min(ages)} days" if ages else "for good"
    return (
        f"the bucket keeps old versions of deleted images {how_long}: add a lifecycle rule with "
        "NoncurrentVersionExpiration"
    )


def _find_age(action: Mapping[str, Any], today: date) -> int | None:
    """The age in days at which an action acts on every image; None if it does not."""
    if "Days" in action:
        return int(action["Days"])
    # What is uploaded after the date is acted on at once.
    return 0 if "Date" in action and _read_date(action) <= today else None


def _read_date(action: Mapping[str, Any]) -> date:
    at: datetime = action["Date"]
    return at.astimezone(UTC).date()


def _covers(rule: Rule, beginning: str) -> bool:
    """Whether a rule is about every object whose key begins so."""
    prefix, is_filtered = _read_filter(rule)
    return not is_filtered and beginning.startswith(prefix)


def _touches(rule: Rule, beginning: str) -> bool:
    """Whether a rule may be about an object whose key begins so."""
    prefix, _ = _read_filter(rule)
    return beginning.startswith(prefix) or prefix.startswith(beginning)


def _read_filter(rule: Rule) -> tuple[str, bool]:
    """The prefix of a rule, and whether it selects by tags or sizes too."""
    chosen = rule.get("Filter") or {}
    combined = chosen.get("And") or chosen
    is_filtered = any(value for name, value in combined.items() if name != "Prefix")
    return str(combined.get("Prefix", rule.get("Prefix", ""))), is_filtered
