"""The model card for people: the JSON card of a CNN as Markdown.

Everything in it comes out of the card; what the card lacks is left out. The JSON is made by
training, which measures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fer_batch.fer2013 import CLASSES

_WHAT = """\
Takes 48×48 grey crops of faces and gives the probabilities of seven expressions. fer-batch reports
Happy or Sad, the larger of the two; the other five together are `neither`.

It says what an expression looks like, never more than "a happy expression was seen". It does not
say what a person feels, and a smile is no proof that a customer was content.

**Not to be used** for inferring the emotions of employees or pupils (prohibited in the EU by
Article 5 of the AI Act), for recognising anybody, or for decisions about a person: hiring, pay,
discipline, access, prices, insurance, education, police or border control. People must be told
where it is in use (Article 50)."""

_LIMITS = """\
- FER2013 is pictures found by a search engine for words of emotion: posed, frontal, mostly of
  adults, of nobody's known age, sex or origin. No figure by group exists, so none may be assumed
  equal.
- Sad is noisy: FER+ voters call two in five of the faces labelled Sad sad, most of the rest
  neutral.
- Threshold and calibration were fitted on PublicTest, and how to compute in eight bits was chosen
  there; its figures are a little too good."""


def as_markdown(card: dict[str, Any]) -> str:
    """The card as a page of Markdown that ends with a newline."""
    parts = [f"# {card['name']}: model card", _WHAT, *_made(card)]
    for usage in ("PrivateTest", "PublicTest"):
        figures = card.get("metrics", {}).get(usage)
        if figures:
            parts += [f"## Figures on {usage}", *_figures(figures)]
    if "detector" in card:
        found = card["detector"]
        parts.append(
            "## Faces that the detector finds among PrivateTest's enlarged crops\n\n"
            + _table(
                ("label", "rows", "found"),
                ((k, found[k]["rows"], found[k]["found"]) for k in found),
            )
        )
    failures = list(_failures(card))
    if failures:
        parts += ["## Known failures, on PrivateTest", "\n".join(f"- {one}" for one in failures)]
    parts += ["## Known limits", _LIMITS]
    return "\n\n".join(parts) + "\n"


def _made(card: dict[str, Any]) -> Iterator[str]:
    size = [
        ("multiply-adds for a crop", card.get("multiply_adds")),
        ("parameters", card.get("parameters")),
        ("bytes", card.get("artefact_bytes")),
        ("SHA-256", card.get("artefact_sha256")),
        ("uncertain below", card.get("uncertain_below")),
    ]
    yield "## The artefact\n\n" + _table(("", card["artefact"]), size)
    eight_bits = card.get("eight_bits")
    if eight_bits:
        yield "## Convolutions in eight bits, beside float32 on PublicTest\n\n" + _table(
            ("", ""), ((key.replace("_", " "), value) for key, value in eight_bits.items())
        )
    data = card.get("data")
    if data:
        yield "## Data\n\n" + _table(("", ""), ((k, _plain(v)) for k, v in data.items()))
    recipe = card.get("recipe")
    if recipe:
        yield "## Recipe\n\n" + _table(("", ""), ((k, _plain(v)) for k, v in recipe.items()))
    training = card.get("training")
    if training:
        yield "## Training run\n\n" + _table(
            ("", ""), ((k, _plain(v)) for k, v in training.items())
        )


def _figures(figures: dict[str, Any]) -> Iterator[str]:
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
    yield _table(("figure", "value"), rows)
    recall = figures.get("seven", {}).get("recall")
    if recall:
        yield "Recall of each expression:\n\n" + _table(("label", "recall"), recall.items())
    yield from _confusions(figures)
    others = figures.get("others")
    if others:
        keys = ("rows", "uncertain", "called_happy", "called_sad")
        yield "What faces with another label are called:\n\n" + _table(
            ("label", *(key.replace("_", " ") for key in keys)),
            ((name, *(one[key] for key in keys)) for name, one in others.items()),
        )
    if figures.get("robustness"):
        yield "Happy against Sad where each crop is changed:\n\n" + _table(
            ("change", "wrong", "accuracy"),
            ((one["change"], one["wrong"], one["accuracy"]) for one in figures["robustness"]),
        )
    for name, thirds in figures.get("conditions", {}).items():
        # By key: a card that comes from the database has its keys in another order.
        keys = ("from", "to", "rows", "accuracy")
        yield f"Happy against Sad by {name} of the crop:\n\n" + _table(
            keys, ([third[key] for key in keys] for third in thirds)
        )


def _failures(card: dict[str, Any]) -> Iterator[str]:
    """What goes wrong, in faces, the commonest confusions among them."""
    figures = card.get("metrics", {}).get("PrivateTest", {})
    polar = figures.get("happy_sad", {})
    if polar.get("wrong") is not None:
        yield (
            f"{polar['wrong']:,} of {polar['rows']:,} Happy and Sad faces get the other of the two."
        )
    if polar.get("wrong_contradicting_votes") is not None:
        yield (
            f"In {polar['wrong_contradicting_votes']:,} of these more FER+ voters chose the other "
            "of the two than chose the label."
        )
    worse = sorted(figures.get("robustness", ()), key=lambda one: -int(one["wrong"]))
    for one in worse[:3]:
        yield (
            f"{one['wrong']:,} of them get the other where each crop is changed: {one['change']}."
        )
    table = figures.get("three", {}).get("confusion")
    if table:
        for row, name in enumerate(("Happy", "Sad")):
            yield f"{table[row][2]:,} of {sum(table[row]):,} {name} faces are called neither."
        yield (
            f"{table[2][0]:,} of {sum(table[2]):,} faces with another label are called Happy, "
            f"{table[2][1]:,} Sad, where the largest of three decides."
        )
    table = figures.get("seven", {}).get("confusion") or []
    wrong = [
        (table[row][column], row, column)
        for row in range(len(table))
        for column in range(len(table))
        if row != column and table[row][column]
    ]
    for count, row, column in sorted(wrong, key=lambda one: -one[0])[:5]:
        yield f"{count:,} of {sum(table[row]):,} {CLASSES[row]} faces are called {CLASSES[column]}."
    for name, one in card.get("detector", {}).items():
        missed = one["rows"] - one["found"]
        yield f"The face detector misses {missed:,} of {one['rows']:,} {name} faces."


def _confusions(figures: dict[str, Any]) -> Iterator[str]:
    for name, labels in (("three", ("Happy", "Sad", "neither")), ("seven", CLASSES)):
        table = figures.get(name, {}).get("confusion")
        if table:
            yield "Labels are rows, what was said is columns:\n\n" + _table(
                ("label", *labels),
                ((label, *row) for label, row in zip(labels, table, strict=True)),
            )


def _table(head: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [list(head), ["---"] * len(head)]
    lines += [[_text(value) for value in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        # A share keeps four decimals; what they would show as nothing keeps its digits.
        is_tiny = value != 0 and abs(value) < 0.0005
        return f"{value:.2g}" if is_tiny else f"{value:.4f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def _plain(value: object) -> object:
    """A nested value on one line of a table."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(_plain(inner))}" for key, inner in value.items())
    if isinstance(value, list):
        return "; ".join(_text(_plain(inner)) for inner in value)
    return value
