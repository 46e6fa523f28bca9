"""The Markdown model card renders the figures of the card, and leaves out what it lacks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from fer_batch.model.model_card import render_markdown
from fer_batch.resources import find_artifacts_dir

CARD = json.loads((find_artifacts_dir() / "fer48.json").read_text())


def test_the_shipped_markdown_card_is_up_to_date() -> None:
    assert (find_artifacts_dir() / "fer48.md").read_text(encoding="utf-8") == render_markdown(CARD)


def test_the_documentation_states_the_figures_of_the_shipped_card(repo_root: Path) -> None:
    public, private = (CARD["metrics"][usage] for usage in ("PublicTest", "PrivateTest"))
    polar, votes = private["happy_sad"], private["votes"]
    consensus, error = private["happy_sad_consensus"], private["calibration"]
    changed = {entry["change"]: entry["accuracy"] for entry in private["robustness"]}
    statements = [
        f"Happy against Sad, {polar['rows']:,} faces | {polar['accuracy']:.3f} ",
        f"(Happy {polar['recall_happy']:.3f}, Sad {polar['recall_sad']:.3f})",
        f"{consensus['rows']} faces | {consensus['accuracy']:.3f} |",
        f"| {error['ece']:.3f} ({error['ece_low']:.3f} to {error['ece_high']:.3f}) |",
        f"| {changed['24 pixels across']:.3f}; {changed['JPEG of quality 30']:.3f}; ",
        f"; {changed['noise, sigma 12 grey values']:.3f} |",
        f"seven expressions | {private['seven']['accuracy']:.3f} |",
        f"{votes['rows']:,} faces | {votes['accuracy']:.3f} |",
        f"neutral faces called sad | {votes['neutral_called_sad']:.3f} |",
        f"sad faces called sad | {votes['sad_called_sad']:.3f} |",
        f"happy faces called happy | {votes['happy_called_happy']:.3f} |",
    ]
    readme = (repo_root / "README.md").read_text(encoding="utf-8")
    assert [text for text in statements if text not in readme] == []
    page = (repo_root / "docs" / "train.md").read_text(encoding="utf-8")
    cells = re.sub(r" \([0-9,]+\)", "", page).replace("*", "")
    for figure, keys in (
        ("happy_sad", ["accuracy"]),
        ("happy_sad_consensus", ["accuracy"]),
        ("seven", ["accuracy"]),
        ("three", ["accuracy"]),
        ("votes", ["accuracy", "neutral_called_sad", "sad_called_sad", "happy_called_happy"]),
        ("probabilities", ["ece_happy", "ece_sad", "ece_neither"]),
    ):
        for key in keys:
            row = f"| {public[figure][key]:.4f} | {private[figure][key]:.4f} |"
            assert row in cells, (figure, key)
    matrix = CARD["confusions"]["PublicTest"]["plurality"]["48"]
    for name, counts in zip(("happy", "sad", "neither"), matrix, strict=True):
        assert f"| {name} | {' | '.join(map(str, counts))} |" in page.replace(",", "")


def test_the_figures_of_the_card_are_rendered() -> None:
    page = render_markdown(CARD)
    figures = CARD["metrics"]["PrivateTest"]
    for value in (
        figures["happy_sad"]["accuracy"],
        figures["happy_sad"]["recall_sad"],
        figures["happy_sad_consensus"]["accuracy"],
        figures["calibration"]["ece"],
        figures["seven"]["recall"]["fear"],
        figures["three"]["accuracy"],
        figures["neutral"]["called_sad"],
        figures["votes"]["neutral_called_sad"],
        figures["probabilities"]["ece_sad"],
        CARD["calling_rule"]["sad_from"],
        CARD["vote_calibration"]["weights"][0][3],
        figures["conditions"]["brightness"][0]["accuracy"],
    ):
        assert f"{value:.4f}".rstrip("0") in page
    assert f"| {figures['seven']['confusion'][6][4]} |" in page
    for by_truth in CARD["confusions"].values():
        for by_size in by_truth.values():
            for size, table in by_size.items():
                happy = " | ".join(f"{count:,}" for count in table[0])
                assert f"| {size} px | happy | {happy} |" in page
    assert CARD["artefact_sha256"] in page
    assert (
        f"| happy | {CARD['detector']['happy']['rows']} | {CARD['detector']['happy']['found']} |"
        in page
    )
    assert "prohibited" in page


def test_quantization_is_rendered_only_if_it_was_measured() -> None:
    page = render_markdown(CARD)
    assert "| is taken | yes |" in page
    assert (
        f"| calibration error added | {CARD['eight_bits']['calibration_error_added']:.4f} |" in page
    )
    assert "Int8 quantization compared" in page
    assert "Int8 quantization compared" not in render_markdown(CARD | {"eight_bits": None})


def sort_keys_by_length(part: Any) -> Any:
    """The key order in which PostgreSQL stores a JSON object: shorter keys first."""
    if isinstance(part, list):
        return [sort_keys_by_length(entry) for entry in part]
    if not isinstance(part, dict):
        return part
    return {
        key: sort_keys_by_length(part[key]) for key in sorted(part, key=lambda key: (len(key), key))
    }


def test_a_card_from_the_database_renders_the_same() -> None:
    def render_lines(card: dict[str, Any]) -> list[str]:
        sections = {"metrics", "detector", "confusions", "vote_calibration", "calling_rule"}
        page = render_markdown({key: card[key] for key in {"name", "artefact"} | sections})
        return sorted(page.splitlines())

    assert render_lines(sort_keys_by_length(CARD)) == render_lines(CARD)


def test_known_failures_are_counted() -> None:
    page = render_markdown(CARD)
    figures = CARD["metrics"]["PrivateTest"]
    polar = figures["happy_sad"]
    assert (
        f"- {polar['wrong']} of {polar['rows']:,} Happy and Sad faces are classified as the "
        "opposite." in page
    )
    sad = figures["three"]["confusion"][1]
    assert f"- {sad[2]} of {sum(sad)} Sad faces are called neither." in page
    votes = figures["votes"]["confusion"][2]
    assert (
        f"- Of {sum(votes):,} faces that at least 6 of 10 voters call neither, fer-batch calls "
        f"{votes[0]} happy and {votes[1]} sad." in page
    )
    seen = CARD["detector"]["sad"]
    assert f"misses {seen['rows'] - seen['found']} of {seen['rows']} sad faces" in page


def test_small_numbers_and_booleans_are_formatted() -> None:
    page = render_markdown(
        {
            "name": "other",
            "artefact": "other.onnx",
            "training": {"difference": 1.49e-6, "left": 0.0, "resumed": True},
        }
    )
    assert "| difference | 1.5e-06 |" in page
    assert "| left | 0 |" in page
    assert "| resumed | yes |" in page


def test_a_minimal_card_is_rendered() -> None:
    page = render_markdown(
        {"name": "other", "artefact": "other.onnx", "metrics": {"PublicTest": {}}}
    )
    assert page.startswith("# other: model card\n")
    assert "Figures on" not in page
    assert page.endswith("\n")
