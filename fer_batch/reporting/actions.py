"""What to do next about a facility, one sentence each.

An action follows from an open finding, from the cameras of the last days, from the images that were
not scored, from the end of the permission, or from a verdict that is open. An acknowledged finding
has none: somebody takes care of it already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from fer_batch.reporting import wording
from fer_batch.reporting.formatting import format_day, format_long_day, round_up
from fer_batch.reporting.loading import FacilityRows, ReportRows, Row
from fer_batch.satisfaction.group_totals import compute_labels_needed

if TYPE_CHECKING:
    from fer_batch.reporting.pages import FacilityPage

PERMISSION_DAYS = 30
"""A permission that ends within so many days is mentioned."""
CAMERA_DAYS = 14
CAMERA_MIN_DAYS = 3
"""A camera is dead if it delivered on at least 3 of 14 days and not on the newest."""
UNREADABLE_SHARE = 0.2
UNREADABLE_MIN = 10
MERGED_FROM = 4
"""From so many facilities on, an action is one sentence about all of them."""

GENERAL = {
    "no images": "No image arrived. Check that the cameras run and upload; if they do, tell the "
    "operator of fer-batch",
    "dead camera": "A camera stopped delivering. Restart it, or check its upload",
    "frozen camera": "A camera repeats the same picture. Restart it",
    "poster": "A face never moves, such as on a poster. Cover it, or turn the camera",
    "unreadable": "Many images cannot be read. Check the cameras and their upload",
    "upload": "Images arrive late, or fewer than expected. Check the cameras and their upload",
    "permission": "The permission has ended or ends soon. Renew it, or stop the cameras",
    "people": "People at work or in education are read. Have a lawyer confirm that this is lawful",
    "registry": "The entry in the facility registry is not complete. Give the operator of "
    "fer-batch what the finding below names",
    "technical": "Figures may be wrong or missing. Ask the operator of fer-batch to work through "
    "the findings",
    "not scored": "Many images were not scored. Look at the reasons below, and check the cameras: "
    "light, dirt, position",
    "retry": "Images could not be read. The next run tries again; if this does not end, tell the "
    "operator of fer-batch",
    "below target": "The happy rate is clearly below the target. Look since when, in the trend "
    "below, and find out what changed then",
    "fell": "The happy rate fell clearly since last week. Find out what changed in the facility or "
    "at its cameras",
    "unusual": "Unusually many or few images were not scored, or faces look neither happy nor sad. "
    "Check the cameras: light, dirt, position",
    "drift": "The faces differ from those that the audit labeled. Check the cameras: light, dirt, "
    "position. If it is to stay so, have a new audit labeled",
    "closed day": "Images were taken on a closed day. Tell the operator of fer-batch whether the "
    "facility was open",
    "names": "Image names tell no capture time. Ask the operator of fer-batch to check the name "
    "template",
    "findings": "The data checks found something. Look at the findings below, and ask the operator "
    "of fer-batch if one is not clear",
    "label again": "The audit expires, or is not valid for the CNN in use. Ask the operator of "
    "fer-batch for a new one, and have its faces labeled",
    "audit": "More faces would not tell whether the target is met. Have faces of the facility "
    "labeled in an audit",
    "faces": "It is not clear whether the target is met. Wait for more faces, or have some labeled "
    "in an audit",
}
"""The kinds of actions, the most urgent first, and what to do."""

_BY_CHECK = {
    "day_without_images": "no images",
    "facility_without_images": "no images",
    "frozen_camera": "frozen camera",
    "face_that_never_moves": "poster",
    "unsupported_files": "unreadable",
    "fewer_images_than_expected": "upload",
    "upload_not_finished": "upload",
    "images_after_lookback": "upload",
    "images_to_retry": "retry",
    "many_images_not_scored": "not scored",
    "names_without_time": "names",
    "no_permission": "permission",
    "people_at_work_or_in_education": "people",
    "incomplete_in_registry": "registry",
    "rate_below_target": "below target",
    "rate_fell": "fell",
    "unusual_share": "unusual",
    "faces_differ_from_audit": "drift",
    "audit_expires": "label again",
    "audit_of_another_version": "label again",
    "images_on_closed_day": "closed day",
    **dict.fromkeys(
        (
            *("face_count_differs", "images_not_listed", "images_without_outcome"),
            *("invalid_in_registry", "listing_failed", "outcome_hits_many"),
            *("probabilities_do_not_sum_to_one", "result_without_image"),
            *("summary_differs_from_recount", "summary_missing", "thumbnails"),
            "unknown_model_version",
        ),
        "technical",
    ),
}
"""The kind for each check. A test fails if one is missing; findings of other versions of fer-batch,
whose checks are not known, have the kind `technical` or `findings`."""


@dataclass(frozen=True, slots=True)
class Action:
    """What to do: the kind, one of `GENERAL`, and a sentence."""

    kind: str
    sentence: str


def list_actions(each: FacilityRows, rows: ReportRows, rated: Sequence[Row]) -> list[Action]:
    """The actions about a facility, at most one of each kind, the most urgent first.

    `rated` are its published summaries, the shortest period first.
    """
    found = [
        *_from_cameras(each),
        *_from_findings(each),
        *_from_images(each.as_of),
        *_from_permission(each.facility, rows.capture_day),
        *_from_verdict(rated, rows),
    ]
    first = {action.kind: action for action in reversed(found)}
    return [first[kind] for kind in GENERAL if kind in first]


def merge(found: Sequence[tuple[FacilityPage, Action]]) -> list[dict[str, Any]]:
    """Actions of several facilities, most urgent first; each with `sentence` and `pages`.

    Those of a kind that at least `MERGED_FROM` facilities have become one.
    """
    merged: list[dict[str, Any]] = []
    for kind, general in GENERAL.items():
        of_kind = [(page, action) for page, action in found if action.kind == kind]
        if len(of_kind) >= MERGED_FROM:
            merged.append({"sentence": f"{general}.", "pages": [page for page, _ in of_kind]})
        else:
            merged += [{"sentence": action.sentence, "pages": [page]} for page, action in of_kind]
    return merged


def find_dead_cameras(days: Mapping[date, Row]) -> dict[str, date]:
    """The cameras that stopped delivering, each with the last day on which it did.

    `days` are the newest daily summaries of a facility.
    """
    with_cameras = [day for day in sorted(days) if days[day]["cameras"]]
    if not with_cameras:
        return {}
    newest = with_cameras[-1]
    earlier = [d for d in with_cameras if newest - timedelta(days=CAMERA_DAYS) <= d < newest]
    seen = Counter(camera for day in earlier for camera in days[day]["cameras"])
    return {
        camera: max(day for day in earlier if camera in days[day]["cameras"])
        for camera, delivered in sorted(seen.items())
        if delivered >= CAMERA_MIN_DAYS and camera not in days[newest]["cameras"]
    }


def _from_cameras(each: FacilityRows) -> list[Action]:
    dead = find_dead_cameras(each.days)
    if not dead:
        return []
    names = " and ".join(dead)
    last = format_day(max(dead.values()))
    noun = "Camera" if len(dead) == 1 else "Cameras"
    return [
        Action(
            "dead camera",
            f"{noun} {names} delivered nothing after {last}. Restart it, or check its upload."
            if len(dead) == 1
            else f"{noun} {names} delivered nothing after {last}. Restart them, or check their "
            "upload.",
        )
    ]


def _from_findings(each: FacilityRows) -> list[Action]:
    actions = []
    for finding in each.open_findings:
        if finding.state != "open":
            continue
        other = "technical" if finding.severity == "error" else "findings"
        kind = _BY_CHECK.get(finding.check, other)
        day = each.days.get(finding.last_day)
        if kind == "no images" and day is not None and not day["is_complete"]:
            kind = "findings"  # images may arrive before the day is over
        sentence = f"{GENERAL[kind]}."
        if kind == "permission" and finding.details:
            sentence = (
                f"Images were not read: {finding.details}. Correct the entry in the facility "
                "registry, or stop the cameras."
            )
        if kind in ("frozen camera", "poster") and finding.subject:
            what = "repeats the same picture. Restart it."
            if kind == "poster":
                what = "shows a face that never moves, such as on a poster. Cover it, or turn it."
            sentence = f"Camera {finding.subject} {what}"
        actions.append(Action(kind, sentence))
    return actions


def _from_images(as_of: Row | None) -> list[Action]:
    if as_of is None:
        return []
    bad = {
        outcome: images
        for outcome, images in as_of["not_scored"].items()
        if outcome not in ("no_face", "erased")
    }
    count = sum(bad.values())
    if count < UNREADABLE_MIN or count <= UNREADABLE_SHARE * as_of["images"]:
        return []
    most = wording.name_outcome(max(bad, key=lambda outcome: bad[outcome]))
    return [
        Action(
            "unreadable",
            f"{count:,} of {as_of['images']:,} images could not be read, most often: {most}. "
            "Check the cameras and their upload.",
        )
    ]


def _from_permission(facility: Row, capture_day: date) -> list[Action]:
    last = facility["permission_valid_until"]
    if last is None:
        return [Action("permission", "No permission is recorded. Nothing is read without one.")]
    if last < capture_day:
        return [
            Action(
                "permission",
                f"The permission ended on {format_long_day(last)}. Renew it, or stop the cameras.",
            )
        ]
    if last < capture_day + timedelta(days=PERMISSION_DAYS):
        return [
            Action(
                "permission",
                f"The permission ends on {format_long_day(last)}. Renew it before.",
            )
        ]
    return []


def _from_verdict(rated: Sequence[Row], rows: ReportRows) -> list[Action]:
    """How many faces or labels would settle an open verdict, judged by the longest period."""
    verdicts = {row["verdict"] for row in rated}
    if "inconclusive" not in verdicts or not verdicts.isdisjoint(wording.CONCLUSIVE):
        return []
    longest = [row for row in rated if row["verdict"] == "inconclusive"][-1]
    labels = compute_labels_needed(longest, rows.confusions[longest["model_version"]])
    audit = None
    if labels is not None and labels > (longest["audit_labels"] or 0):
        audit = f"an audit of about {labels:,} of its own faces ({wording.AUDIT_COMMAND})"
    needed = longest["faces_needed"]
    if needed is not None:
        number = f"{round_up(needed):,} faces instead of {longest['faces']:,}"
        also = "" if audit is None else f", or {audit},"
        return [Action("faces", f"About {number}{also} would settle whether the target was met.")]
    if audit is None:
        return []
    return [
        Action(
            "audit",
            f"{audit[0].upper()}{audit[1:]} would settle whether the target was met; more faces "
            "alone would not.",
        )
    ]
