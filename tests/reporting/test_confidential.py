"""What nobody but an engineer is told: keys of images, what files say, and counts of few faces."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fer_batch.cli import nightly
from fer_batch.digests import content, rendering
from fer_batch.findings import history, storing
from fer_batch.pipeline import checks
from fer_batch.records import ImageScore, Outcome
from fer_batch.reporting import loading, pages, report
from fer_batch.satisfaction import figures
from fer_batch.settings import Settings
from tests.fixtures.tables import Tables

FACES = 97
"""Of four frames, so too few sessions to publish, and the number is that of no image or date."""
NAMES = ("Mrs-Miller_2026", "said-by-the-file")


def fill(tables: Tables) -> Sequence[Mapping[str, Any]]:
    """A day with few faces, a camera with one picture, odd files, and results that do not fit.

    Returns its summary.
    """
    tables.add("north-mall", image_kind="frames", name_template="{camera}_{captured_at:%H%M%S}.jpg")
    prefix = f"north-mall/{tables.batch.capture_day}"
    frames = {f"{prefix}/till_10{n:02}00.jpg": f"picture {n}" for n in range(4)}
    frozen = {f"{prefix}/door_11{n:02}00.jpg": "wall" for n in range(12)}
    odd = {f"{prefix}/{NAMES[0]} {n}; all is well.heic": f"odd {n}" for n in range(9)}
    thumbs = {f"{prefix}/thumbs/{NAMES[0]} {n}.jpg": f"thumb {n}" for n in range(9)}
    damaged = {f"{prefix}/till_12{n:02}00.jpg": f"damaged {n}" for n in range(30)}
    tables.list(frames | frozen | odd | thumbs | damaged)
    faces = {key: 24 + (number == 0) for number, key in enumerate(frames)}
    scores = []
    for image in tables.list_work():
        if count := faces.get(image.key):
            scores.append(tables.build_score(image, *[tables.build_face()] * count))
        elif image.key in odd:
            scores.append(ImageScore(image, Outcome.UNSUPPORTED, NAMES[1]))
        elif image.key in damaged:
            scores.append(ImageScore(image, Outcome.UNREADABLE, NAMES[1]))
        else:
            scores.append(ImageScore(image, Outcome.NO_FACE))
    tables.write(*scores)
    summaries = tables.summarize()
    (row,) = tables.query("SELECT faces, method FROM fer.satisfaction_summary")
    assert tuple(row) == (FACES, "suppressed")
    tables.execute("UPDATE fer.face_result SET p_sad = 0.5 WHERE p_happy > 0.5")
    tables.execute("DELETE FROM fer.image_result WHERE image_key LIKE '%till_100000.jpg'")
    return summaries


def test_keys_and_suppressed_counts_are_told_to_no_manager(
    tables: Tables, tmp_path: Path, capsys: Any
) -> None:
    summaries = fill(tables)
    settings = Settings(_env_file=None, report_dir=tmp_path, facilities_file=tmp_path / "f.toml")
    findings = checks.check_data(tables.engine, [tables.batch], tables.version, "run-3", settings)
    told = {each["check"] for each in findings}
    assert told >= {
        *("frozen_camera", "unsupported_files", "thumbnails", "names_without_time"),
        *("outcome_hits_many", "probabilities_do_not_sum_to_one", "result_without_image"),
        *("summary_differs_from_recount",),
    }
    assert all(name in str(findings) for name in NAMES)  # an engineer sees them
    day = tables.batch.capture_day
    with tables.transaction() as connection:
        storing.store_findings(connection, [tables.batch], findings, "run-3", settings)
    report.write_report(tables.engine, settings, day)
    with tables.transaction() as connection:
        rows = loading.load_rows(connection, day)
        stored = history.list_findings(connection)
    digest = content.build_digest(pages.build_report(rows), rows, "day")
    report.print_summaries(summaries, facilities=tables.facilities)
    managers = {
        "report": "".join(file.read_text() for file in tmp_path.rglob("*.html")),
        "text": rendering.render_text(digest, "test"),
        "html": rendering.render_html(digest, "test"),
        "chat": rendering.render_chat(digest),
        "console": capsys.readouterr().out,
        "task": json.dumps(figures.hide_counts(summaries), default=str),
        "findings": str([each["finding"] for each in findings]),
        "task of the checks": json.dumps(nightly._hide_examples(findings), default=str),
    }
    assert "camera door" in managers["report"]
    for place, text in managers.items():
        for name in NAMES:
            assert name not in text, place
        assert not has_number(text, FACES), place
    # `findings list` names an example.
    assert any(NAMES[0] in each.details for each in stored)


def has_number(text: str, number: int) -> bool:
    words = text.replace(">", " ").replace("<", " ").replace(",", " ").replace("(", " ").split()
    return str(number) in words
