"""Renders the JSON model card of a CNN as Markdown.

All figures come from the card; sections that the card lacks are left out. Training measures the
figures and writes the JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fer_batch.model.confusion import SIZES_PX
from fer_batch.model.fer2013 import CLASSES
from fer_batch.model.probabilities import CALLED_CLASSES

_PURPOSE = """\
The CNN classifies 48×48 gray crops of faces and returns the probabilities of seven expressions.
From these, fer-batch estimates which shares of ten people would call a face happy, sad or neither
(`p_happy`, `p_sad`, `p_neither`), and calls it one of the three. The result per image, Happy or
Sad, is a forced choice: whichever of the two the CNN finds more probable.

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
- The calibrations and the calling rule were fitted on PublicTest, and the int8 quantization was
  chosen on it, so the figures on PublicTest are slightly optimistic.
- The confusion matrices count pictures of image searches. Faces in a shop differ from them in
  light, size and pose, so the matrix of a shop differs as well."""


def render_markdown(card: dict[str, Any]) -> str:
    """The card as Markdown that ends with a newline.

    `card` is the JSON object of the card; only `name` and `artefact` are required.
    """
    parts = [f"# {card['name']}: model card", _PURPOSE, *_render_origin(card)]
    for usage in ("PrivateTest", "PublicTest"):
        figures = card.get("metrics", {}).get(usage)
        if figures:
            parts += [f"## Figures on {usage}", *_render_metrics(figures)]
        matrices = list(_render_calling_confusions((card.get("confusions") or {}).get(usage, {})))
        if matrices:
            parts += [f"## Confusion matrices of the called class on {usage}", *matrices]
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
    ]
    yield "## The artifact\n\n" + _render_table(("", card["artefact"]), size)
    yield from _render_calling(card)
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


def _render_calling(card: dict[str, Any]) -> Iterator[str]:
    """How the class probabilities become p_happy, p_sad and p_neither and a called class."""
    rule = card.get("calling_rule")
    if rule:
        yield (
            "## Called class\n\n"
            f"A face is called happy from p_happy {_format_value(rule['happy_from'])} on, else sad "
            f"from p_sad {_format_value(rule['sad_from'])} on, else neither."
        )
    calibration = card.get("vote_calibration")
    if calibration:
        yield (
            "## Calibration to the votes\n\n"
            "p_happy, p_sad and p_neither are the softmax of a score of happy, a score of sad, and "
            f"0. The features of a score are {calibration['features']}.\n\n"
            + _render_table(
                ("score", "intercept", *CLASSES),
                (
                    (name, intercept, *weights)
                    for name, intercept, weights in zip(
                        ("happy", "sad"),
                        calibration["intercepts"],
                        calibration["weights"],
                        strict=True,
                    )
                ),
            )
        )


def _render_calling_confusions(by_truth: dict[str, Any]) -> Iterator[str]:
    """The confusion matrices of the called class on one split."""
    for truth, title in (
        ("plurality", "the class that most FER+ voters chose (a tie is neither)"),
        ("kaggle", "the label of FER2013"),
    ):
        rows = [
            (f"{size_px} px", name, *counts)
            for size_px in SIZES_PX
            for name, counts in zip(
                CALLED_CLASSES, by_truth.get(truth, {}).get(str(size_px), []), strict=False
            )
        ]
        if rows:
            yield f"True class: {title}. Columns are called classes, counts are faces:\n\n" + (
                _render_table(("crop", "true class", *CALLED_CLASSES), rows)
            )


def _render_metrics(figures: dict[str, Any]) -> Iterator[str]:
    rows = []
    for name, title in (
        ("happy_sad", "Happy against Sad"),
        ("happy_sad_consensus", "Happy against Sad, 6 of 10 voters agree"),
        ("votes", "called class, at least 6 of 10 votes for one answer"),
        ("probabilities", "p_happy, p_sad, p_neither against the shares of voters"),
        ("seven", "seven expressions"),
        ("three", "Happy, Sad, neither"),
        ("calibration", "calibration of happy / (happy + sad)"),
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
        keys = ("rows", "called_happy", "called_sad", "called_neither")
        yield "Called classes of faces with another label:\n\n" + _render_table(
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
    votes = figures.get("votes", {}).get("confusion")
    if votes and any(map(any, votes)):
        for row, true in enumerate(CALLED_CLASSES):
            mistakes = " and ".join(
                f"{votes[row][column]:,} {called}"
                for column, called in enumerate(CALLED_CLASSES)
                if called is not true
            )
            yield (
                f"Of {sum(votes[row]):,} faces that at least 6 of 10 voters call {true}, fer-batch "
                f"calls {mistakes}."
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
    for name, labels, title in (
        ("votes", CALLED_CLASSES, "rows are what at least 6 of 10 voters chose, columns called"),
        ("three", ("Happy", "Sad", "neither"), "rows are labels, columns are predictions"),
        ("seven", CLASSES, "rows are labels, columns are predictions"),
    ):
        table = figures.get(name, {}).get("confusion")
        if table:
            yield (
                f"Confusion matrix ({title}):\n\n"
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
