"""The CNN: predict, train, evaluate."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group, Parameter

from fer_batch.cli.common import Json, print_json, print_table, settings
from fer_batch.errors import EXIT_FINDINGS

if TYPE_CHECKING:
    from fer_batch.settings import Settings

GROUP = Group("The CNN", sort_key=2)

Data = Annotated[
    Path,
    Parameter(help="fer2013.tar.gz, fer2013.csv or icml_face_data.csv, as Kaggle gives it."),
]
Votes = Annotated[Path | None, Parameter(help="fer2013new.csv with the FER+ votes.")]


def register(app: App) -> None:
    app.command(predict, group=GROUP)
    app.command(train, group=GROUP)
    app.command(soft_labels, group=GROUP)
    app.command(evaluate, group=GROUP)


def predict(
    source: Annotated[str, Parameter(help="A file, a folder, an http(s) URL or s3://bucket/key.")],
    /,
    *,
    crop: Annotated[
        bool, Parameter(help="The whole picture is the face; none is looked for.")
    ] = False,
    annotate: Annotated[
        Path | None,
        Parameter(
            help="Write the picture with its faces marked: a file (PNG or JPEG) for one picture, "
            "a folder for several. Pictures without a face are left out."
        ),
    ] = None,
    allow_private_addresses: Annotated[
        bool, Parameter(help="Let a URL lead to an address of this machine or network.")
    ] = False,
    json: Json = False,
) -> int:
    """Say for each picture whether a happy or a sad expression is seen. Nothing is stored."""
    from fer_batch import annotation
    from fer_batch import predict as module

    loaded = settings()
    marked = annotation.AnnotatedPictures(annotate, source, loaded) if annotate else None
    predictor = module.Predictor(loaded, is_crop=crop)
    found = module.pictures(source, loaded, is_private_allowed=allow_private_addresses)
    is_scored = False
    rows = []
    for picture in found:
        prediction = predictor.predict(picture)
        is_scored = is_scored or bool(prediction.faces)
        if not json:
            sys.stdout.write(module.as_text(prediction) + "\n")
        path = marked.write(picture, prediction) if marked is not None else None
        if json:
            rows.append(module.as_json(prediction, path))
        elif path is not None:
            sys.stdout.write(f"Annotated picture: {module.printable(str(path))}\n")
    if json:
        print_json(rows)
    return 0 if is_scored else EXIT_FINDINGS


def train(
    *,
    data: Data,
    votes: Votes = None,
    out: Annotated[Path, Parameter(help="Folder for the artefact and its card.")] = Path("runs"),
    name: Annotated[str, Parameter(help="Name of the artefact.")] = "fer48",
    recipe: Annotated[
        Path | None, Parameter(help="JSON file with what differs from the shipped recipe.")
    ] = None,
    candidates: Annotated[
        bool, Parameter(help="Train a small, a medium and a large network and compare them.")
    ] = False,
    epochs: Annotated[
        int | None,
        Parameter(help="Epochs before the finish; none means those of the recipe."),
    ] = None,
    resume: Annotated[bool, Parameter(help="Go on from the checkpoint of a killed run.")] = False,
    soft_labels: Annotated[
        Path | None, Parameter(help="A teacher's soft labels; none means those that ship.")
    ] = None,
    threads: Annotated[
        int | None, Parameter(help="Cores to use; none means those of FER_THREADS.")
    ] = None,
    json: Json = False,
) -> None:
    """Train the CNN on FER2013 and write the ONNX artefact with its card (extra `train`).

    With `--candidates`, three networks are trained by one recipe, compared in a table and a chart,
    and registered where a database is set.
    """
    from fer_batch.training import candidates as module
    from fer_batch.training import recipe as recipes
    from fer_batch.training import run

    loaded = settings()
    chosen = module.with_epochs(recipes.load(recipe) if recipe else recipes.Recipe(), epochs)
    more = (resume, threads or loaded.threads, soft_labels)
    if candidates:
        _check_registry(loaded)
        rows = module.compare(data, votes, out, name, module.candidates(chosen), *more)
        if json:
            print_json(rows)
        else:
            print_table("Candidates", module.shown(rows))
        _register(loaded, [Path(row["card"]) for row in rows])
        return
    card = run.train(data, votes, out, name, chosen, *more)
    if json:
        print_json(card)
    else:
        _print_figures(card["metrics"])


def _check_registry(loaded: Settings) -> None:
    """Hours of training must not end at a database that was out of order all the time."""
    from fer_batch import database

    if loaded.database_url is not None:
        database.check_migrated(database.engine(loaded))


def _register(loaded: Settings, cards: Sequence[Path]) -> None:
    from fer_batch import choice, classifier, models
    from fer_batch.log import logger

    log = logger(__name__)
    if loaded.database_url is None:
        log.warning("not registered", why="no database is set", todo="Set FER_DATABASE_URL")
        return
    with choice.connected(loaded) as connection:
        for path in cards:
            models.register(connection, classifier.load_artefact(path))
    log.info("registered", cnns=len(cards), todo="See `fer-batch models`")


def soft_labels(
    *,
    card: Annotated[
        list[Path],
        Parameter(
            help="Card of a teacher, made by `fer-batch train`; of several, the mean counts."
        ),
    ],
    data: Data,
    out: Annotated[Path, Parameter(help="The file to write.")] = Path("runs/soft_labels.npz"),
) -> None:
    """Write what a teacher, or several, say of the training rows, for `train --soft-labels`."""
    from fer_batch.training import teacher

    rows = teacher.write(card, data, out, settings().threads)
    sys.stdout.write(f"{out}: {rows} rows\n")


def evaluate(
    *,
    data: Annotated[Path | None, Parameter(help="FER2013, as Kaggle gives it.")] = None,
    votes: Votes = None,
    split: Annotated[str, Parameter(help="Training, PublicTest or PrivateTest.")] = "PrivateTest",
    faces: Annotated[
        Path | None,
        Parameter(help="Instead of FER2013, an npz file: x N×48×48 uint8, y 0 Happy or 1 Sad."),
    ] = None,
    card: Annotated[
        Path | None, Parameter(help="Card of the CNN; none means the one in use.")
    ] = None,
    reliability: Annotated[
        Path | None, Parameter(help="Write the reliability diagram here, as PNG.")
    ] = None,
    detector: Annotated[
        bool, Parameter(help="Count also in how many of the faces the face detector sees one.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure a CNN on a split of FER2013, or on other labelled faces."""
    from fer_batch import calibration, choice, classifier, evaluation
    from fer_batch.errors import ConfigurationError

    loaded = settings()
    if (data is None) == (faces is None):
        raise ConfigurationError(
            "there is nothing to measure on, or too much", "Give --data or --faces, one of the two"
        )
    if faces is not None and votes is not None:
        raise ConfigurationError("--votes belong to --data", "Leave --votes out with --faces")
    if reliability is not None:
        reliability.parent.mkdir(parents=True, exist_ok=True)
    cnn = classifier.load_artefact(card) if card else choice.in_use(loaded).cnn
    if data is not None:
        rows, name = evaluation.rows_of(data, votes, split), split
    elif faces is not None:
        rows, name = evaluation.faces_of(faces), faces.name
    figures = {"split": name, **evaluation.evaluate(cnn, rows, loaded.threads)}
    if detector:
        figures["detector"] = evaluation.found_by_detector(rows, loaded)
    if reliability is not None:
        drawn = calibration.diagram(figures["calibration"], f"{cnn.card.name} on {name}")
        reliability.write_bytes(drawn)
    if json:
        print_json(figures)
    else:
        _print_figures(figures)


def _print_figures(figures: Mapping[str, Any], title: str = "Figures") -> None:
    """Of one split, or of several by name. Bins and conditions are for --json and the card."""
    from fer_batch.fer2013 import CLASSES

    if "PrivateTest" in figures:
        for split, part in figures.items():
            _print_figures(part, split)
        return
    print_table(title, [{"figure": k, "value": _short(v)} for k, v in _flat(figures)])
    for name, labels in (("three", ("happy", "sad", "neither")), ("seven", CLASSES)):
        counts = figures.get(name, {}).get("confusion")
        if counts:
            rows = [
                {"label": label, **dict(zip(labels, row, strict=True))}
                for label, row in zip(labels, counts, strict=True)
            ]
            print_table("Labels (rows) and what was said (columns)", rows)
    changed = [{key: _short(value) for key, value in one.items()} for one in figures["robustness"]]
    if changed:
        print_table("Happy against Sad where each crop is changed", changed)


def _short(value: object) -> object:
    return f"{value:.4f}" if isinstance(value, float) else value


def _flat(figures: object, prefix: str = "") -> list[tuple[str, object]]:
    if not isinstance(figures, dict):
        return [(prefix, figures)]
    pairs = []
    for name, value in figures.items():
        if isinstance(value, list) or name == "method":
            continue
        pairs += _flat(value, f"{prefix}.{name}" if prefix else name)
    return pairs
