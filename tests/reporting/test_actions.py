"""What to do next: a sentence for each cause, and one for all facilities with the same."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from fer_batch.pipeline import checks
from fer_batch.reporting import actions
from tests.reporting.builders import (
    DAY,
    NO_RATE,
    build_acknowledged_finding,
    build_facility,
    build_finding,
    build_open_finding,
    build_page,
    build_rows,
    build_summary,
    get_text,
    render,
)


def list_sentences(*days: Any, **others: Any) -> list[str]:
    return [action.sentence for action in build_page(*days, **others).actions]


def test_nothing_to_do() -> None:
    assert list_sentences(build_summary()) == []
    assert "no camera, permission or figure needs attention" in get_text(
        render(build_rows(build_summary()))
    )


@pytest.mark.parametrize(
    ("delivered", "dead"),
    [
        ({1: "ab", 2: "ab", 3: "ab", 0: "a"}, {"b": DAY - timedelta(1)}),
        ({3: "ab", 4: "ab", 5: "ab", 0: "a", 1: "a"}, {"b": DAY - timedelta(3)}),
        ({1: "ab", 2: "ab", 3: "a", 0: "a"}, {}),  # a camera of two days may have been a trial
        ({15: "ab", 16: "ab", 17: "ab", 0: "a"}, {}),  # removed long ago
        ({0: "ab", 1: "a", 2: "a", 3: "a"}, {}),
        ({0: "", 1: ""}, {}),
    ],
)
def test_dead_cameras(delivered: dict[int, str], dead: dict[str, date]) -> None:
    days = {
        (day := DAY - timedelta(age)): build_summary(day, cameras=dict.fromkeys(names, 9) or None)
        for age, names in delivered.items()
    }
    assert actions.find_dead_cameras(days) == dead
    sentences = list_sentences(*days.values())
    assert any("Camera b delivered nothing after" in each for each in sentences) is bool(dead)


@pytest.mark.parametrize(
    ("finding", "sentence"),
    [
        (build_open_finding("frozen_camera", "one picture 40 times, first a/b.jpg", subject="till"),
         "Camera till repeats the same picture. Restart it."),
        (build_open_finding("face_that_never_moves", "unknown camera: near (1, 2)"),
         "A face never moves, such as on a poster. Cover it, or turn the camera."),
        (build_open_finding("facility_without_images", "no image begins with x/"),
         "No image arrived. Check that the cameras run and upload; if they do, tell the "
         "operator of fer-batch."),
        (build_open_finding("a_new_check", severity="error"),
         "Figures may be wrong or missing. Ask the operator of fer-batch to work through the "
         "findings."),
        (build_open_finding("a_new_check"),
         "The data checks found something. Look at the findings below, and ask the operator of "
         "fer-batch if one is not clear."),
        (build_open_finding("many_images_not_scored", "50 % of 8 images were not scored"),
         "Many images were not scored. Look at the reasons below, and check the cameras: light, "
         "dirt, position."),
        (build_open_finding("rate_fell", subject="week"),
         "The happy rate fell clearly since last week. Find out what changed in the facility or at "
         "its cameras."),
        (build_open_finding("frozen_camera", last_day=DAY - timedelta(1), subject="till"),
         "Camera till repeats the same picture. Restart it."),  # not closed yet
        (build_open_finding("no_permission", "pupils may not be read in DE: Article 5(1)(f)"),
         "Images were not read: pupils may not be read in DE: Article 5(1)(f). Correct the entry "
         "in the facility registry, or stop the cameras."),
        (build_open_finding("incomplete_in_registry"),
         "The entry in the facility registry is not complete. Give the operator of fer-batch what "
         "the finding below names."),
        (build_acknowledged_finding("frozen_camera"), None),
    ],
)  # fmt: skip
def test_actions_of_findings(finding: Any, sentence: str | None) -> None:
    found = list_sentences(build_summary(), open_findings=[finding])
    assert found == ([] if sentence is None else [sentence])
    assert not any("a/b.jpg" in each for each in found)


def test_the_report_does_not_say_nothing_while_there_are_findings() -> None:
    """Neither for acknowledged findings, nor for what earlier days show."""
    nothing = "Nothing: no camera, permission or figure needs attention"
    for others in (
        {"open_findings": [build_open_finding("a_new_check")]},
        {"open_findings": [build_acknowledged_finding("a_new_check")]},
        {"findings": [build_finding("a_new_check", capture_day=DAY - timedelta(1))]},
    ):
        text = get_text(render(build_rows(build_summary(), **others)))
        assert nothing not in text
        assert "ook at the findings below" in text
    unknown = render(build_rows(build_summary()), unknown=[build_finding("invalid_in_registry")])
    assert nothing not in get_text(unknown)
    assert "Findings about facilities that are not in the registry" in get_text(unknown)


def test_open_findings_say_since_when_and_who_takes_care_of_them() -> None:
    rows = build_rows(
        build_summary(),
        open_findings=[
            build_open_finding("frozen_camera", "camera till: one picture"),
            build_acknowledged_finding("a_new_check"),
        ],
    )
    text = get_text(render(rows))
    assert "Open findings" in text
    assert "Since Fri 27 Nov: Something is odd (camera till: one picture)" in text
    assert (
        "Since Fri 27 Nov: Something is odd (details). Acknowledged by Ada on Sun 29 Nov: "
        "a new one is ordered" in text
    )


def test_every_check_has_an_action() -> None:
    of_registry = {
        *("invalid_in_registry", "incomplete_in_registry"),
        "people_at_work_or_in_education",
    }
    names = {check.name for check in checks.load_checks()} | of_registry
    assert set(actions._BY_CHECK) == names
    assert set(actions._BY_CHECK.values()) <= set(actions.GENERAL)


def test_cameras_are_not_blamed_before_the_day_is_over() -> None:
    today = build_summary(images=0, faces=0, is_complete=False, **NO_RATE)
    found = list_sentences(today, open_findings=[build_open_finding("facility_without_images")])
    assert found == [f"{actions.GENERAL['findings']}."]


def test_unreadable_images() -> None:
    broken = build_summary(images=100, not_scored={"unreadable": 18, "empty": 7, "no_face": 60})
    assert list_sentences(broken) == [
        "25 of 100 images could not be read, most often: damaged file. Check the cameras and "
        "their upload."
    ]
    assert list_sentences(build_summary(images=100, not_scored={"no_face": 90})) == []


@pytest.mark.parametrize(
    ("last_day", "sentence"),
    [
        (DAY + timedelta(30), None),
        (DAY + timedelta(5), "The permission ends on Friday, 4 December 2026. Renew it before."),
        (DAY - timedelta(1), "The permission ended on Saturday, 28 November 2026. Renew it, or "
         "stop the cameras."),
        (None, "No permission is recorded. Nothing is read without one."),
    ],
)  # fmt: skip
def test_permissions(last_day: date | None, sentence: str | None) -> None:
    facility = build_facility(permission_valid_until=last_day)
    found = list_sentences(build_summary(), facility=facility)
    assert found == ([] if sentence is None else [sentence])


def test_open_verdicts_name_the_faces_or_labels() -> None:
    many = {"clusters": 9_000, "counts": [9_900, 4_710, 15_390], "products": [[150, 0, 0]] * 3}
    open_day = build_summary(
        verdict="inconclusive", faces_needed=4_321, target_rate=0.28, totals={"gap": many}
    )
    (sentence,) = list_sentences(open_day)
    assert sentence.startswith("About 4,400 faces instead of 300, or an audit of about ")
    assert sentence.endswith(
        "own faces (fer-batch audit sample), would settle whether the target was met."
    )
    (alone,) = list_sentences(open_day | {"faces_needed": None})
    audited = open_day | {"audit_id": 3, "audit_labels": 2_000}
    assert list_sentences(audited) == [
        "About 4,400 faces instead of 300 would settle whether the target was met."
    ]
    assert alone.startswith("An audit of about ")
    assert alone.endswith("would settle whether the target was met; more faces alone would not.")


def test_the_same_action_for_many_facilities_is_one_sentence() -> None:
    ended = date(2026, 11, 1)
    rows = [
        build_rows(
            build_summary(),
            facility=build_facility(f"shop-{n}", permission_valid_until=ended),
        )
        for n in range(30)
    ]
    text = get_text(render(*rows))
    assert text.count("Renew it, or stop the cameras") == 1 + 30  # and in each section
    assert "Renew it, or stop the cameras. (Shop 0, Shop 1," in text
    assert "and 10 more" in text
