"""Renders the JSON model card of a CNN as Markdown.

All figures come from the card; sections that the card lacks are left out. Training measures the
figures and writes the JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fer_batch.model.fer2013 import CLASSES

_PURPOSE = """\
The CNN classifies 48×48 gray crops of faces and returns the probabilities of seven expressions.
fer-batch reports Happy or Sad, whichever is more probable; the other five classes are merged into
`neither`.

It describes visible expressions and never more than "a happy expression was seen". It does not
measure what a person feels, and a smile does not prove that a customer was satisfied.

**Not to be used** for inferring the emotions of employees or pupils (prohibited in the EU by
Article 5 of the AI Act), for identifying people, or for decisions about a person: hiring, pay,
discipline, access, prices, insurance, education, police or border control. People must be informed
where it is in use (Article 50)."""

_LIMITS = """\
- FER2013 consists of results of image searches for emotion words: posed, frontal, mostly adults.
  The age, sex and origin of the people are unknown. There are no figures by group, so equal
  performance across groups must not be assumed.
- The label Sad is noisy: FER+ voters call two in five of the faces labeled Sad sad, and most of the
  others neutral.
- The threshold and the calibration were fitted on PublicTest, and the int8 quantization was chosen
  on it, so the figures on PublicTest are slightly optimistic."""


def render_markdown(card: dict[str, Any]) -> str:
    """The card as Markdown that ends with a newline.

    `card` is the JSON object of the card; only `name` and `artefact` are required.
    """
    parts = [f"# {card['name']}: model card", _PURPOSE, *_render_origin(card)]
    for usage in ("PrivateTest", "PublicTest"):
        figures = card.get("metrics", {}).get(usage)
        if figures:
            parts += [f"## Figures on {usage}", *_render_metrics(figures)]
    if "detector" in card:
        parts.append(
            "## Faces detected in enlarged crops of PrivateTest\n\n"
            + _render_table(
                ("label", "rows", "detected"),
                (
                    (label, counts["rows"], counts["found"])
                    for label, counts in card["detector"].items()
                ),
            )
        )
    failures = list(_list_failures(card))
    if failures:
        parts += ["## Known failures on PrivateTest", "\n".join(f"- {line}" for line in failures)]
    parts += ["## Known limits", _LIMITS]
    return "\n\n".join(parts) + "\n"


def _render_origin(card: dict[str, Any]) -> Iterator[str]:
    size = [
        ("multiply-adds for a crop", card.get("multiply_adds")),
        ("parameters", card.get("parameters")),
        ("bytes", card.get("artefact_bytes")),
        ("SHA-256", card.get("artefact_sha256")),
        ("uncertain below", card.get("uncertain_below")),
    ]
    yield "## The artifact\n\n" + _render_table(("", card["artefact"]), size)
    eight_bits = card.get("eight_bits")
    if eight_bits:
        yield "## Int8 quantization compared with float32 on PublicTest\n\n" + _render_table(
            ("", ""), ((key.replace("_", " "), value) for key, value in eight_bits.items())
        )
    data = card.get("data")
    if data:
        yield "## Data\n\n" + _render_table(("", ""), ((k, _flatten(v)) for k, v in data.items()))
    recipe = card.get("recipe")
    if recipe:
        yield "## Recipe\n\n" + _render_table(
            ("", ""), ((k, _flatten(v)) for k, v in recipe.items())
        )
    training = card.get("training")
    if training:
        yield "## Training run\n\n" + _render_table(
            ("", ""), ((k, _flatten(v)) for k, v in training.items())
        )


def _render_metrics(figures: dict[str, Any]) -> Iterator[str]:
    rows = []
    for name, title in (
        ("happy_sad", "Happy against Sad"),
        ("happy_sad_consensus", "Happy against Sad, 6 of 10 voters agree"),
        ("certain", "Happy against Sad, certain faces alone"),
        ("seven", "seven expressions"),
        ("three", "Happy, Sad, neither"),
        ("calibration", "calibration of p_happy / (p_happy + p_sad)"),
        ("neutral", "neutral faces"),
    ):
        for key, value in (figures.get(name) or {}).items():
            if isinstance(value, int | float) or value is None:
                rows.append((f"{title}: {key.replace('_', ' ')}", value))
    yield _render_table(("figure", "value"), rows)
    recall = figures.get("seven", {}).get("recall")
    if recall:
        yield "Recall by expression:\n\n" + _render_table(("label", "recall"), recall.items())
    yield from _render_confusions(figures)
    others = figures.get("others")
    if others:
        keys = ("rows", "uncertain", "called_happy", "called_sad")
        yield "Predictions for faces with another label:\n\n" + _render_table(
            ("label", *(key.replace("_", " ") for key in keys)),
            ((name, *(shares[key] for key in keys)) for name, shares in others.items()),
        )
    if figures.get("robustness"):
        yield "Happy against Sad on corrupted crops:\n\n" + _render_table(
            ("corruption", "wrong", "accuracy"),
            (
                (result["change"], result["wrong"], result["accuracy"])
                for result in figures["robustness"]
            ),
        )
    for name, thirds in figures.get("conditions", {}).items():
        # By key: PostgreSQL returns the keys of a JSON object in another order.
        keys = ("from", "to", "rows", "accuracy")
        yield f"Happy against Sad by {name} of the crop:\n\n" + _render_table(
            keys, ([third[key] for key in keys] for third in thirds)
        )


def _list_failures(card: dict[str, Any]) -> Iterator[str]:
    """The known failures as sentences that count faces, including the most frequent confusions."""
    figures = card.get("metrics", {}).get("PrivateTest", {})
    polar = figures.get("happy_sad", {})
    if polar.get("wrong") is not None:
        yield (
            f"{polar['wrong']:,} of {polar['rows']:,} Happy and Sad faces are classified as the "
            "opposite."
        )
    if polar.get("wrong_contradicting_votes") is not None:
        yield (
            f"For {polar['wrong_contradicting_votes']:,} of these, more FER+ voters chose the "
            "opposite than the label."
        )
    worst_first = sorted(figures.get("robustness", ()), key=lambda result: -int(result["wrong"]))
    for result in worst_first[:3]:
        yield (
            f"{result['wrong']:,} of them are classified as the opposite on corrupted crops: "
            f"{result['change']}."
        )
    table = figures.get("three", {}).get("confusion")
    if table:
        for row, name in enumerate(("Happy", "Sad")):
            yield f"{table[row][2]:,} of {sum(table[row]):,} {name} faces are called neither."
        yield (
            f"{table[2][0]:,} of {sum(table[2]):,} faces with another label are called Happy and "
            f"{table[2][1]:,} Sad if the largest of the three merged probabilities decides."
        )
    table = figures.get("seven", {}).get("confusion") or []
    confusions = [
        (table[row][column], row, column)
        for row in range(len(table))
        for column in range(len(table))
        if row != column and table[row][column]
    ]
    for count, row, column in sorted(confusions, key=lambda confusion: -confusion[0])[:5]:
        yield f"{count:,} of {sum(table[row]):,} {CLASSES[row]} faces are called {CLASSES[column]}."
    for name, counts in card.get("detector", {}).items():
        missed = counts["rows"] - counts["found"]
        yield f"The face detector misses {missed:,} of {counts['rows']:,} {name} faces."


def _render_confusions(figures: dict[str, Any]) -> Iterator[str]:
    for name, labels in (("three", ("Happy", "Sad", "neither")), ("seven", CLASSES)):
        table = figures.get(name, {}).get("confusion")
        if table:
            yield (
                "Confusion matrix (rows are labels, columns are predictions):\n\n"
                + _render_table(
                    ("label", *labels),
                    ((label, *row) for label, row in zip(labels, table, strict=True)),
                )
            )


def _render_table(head: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [list(head), ["---"] * len(head)]
    lines += [[_format_value(value) for value in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _format_value(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        # Shares have four decimals; a value that they would round to about 0 keeps its digits.
        is_tiny = value != 0 and abs(value) < 0.0005
        return f"{value:.2g}" if is_tiny else f"{value:.4f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def _flatten(value: object) -> object:
    """A nested value on one line of a table."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_format_value(_flatten(inner))}" for key, inner in value.items())
    if isinstance(value, list):
        return "; ".join(_format_value(_flatten(inner)) for inner in value)
    return value
