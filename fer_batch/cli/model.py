"""Commands of the CNN: predict, train, compute soft labels, evaluate."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group, Parameter

from fer_batch.cli.common import Json, load_settings, print_json
from fer_batch.console import print_table
from fer_batch.errors import EXIT_FINDINGS

if TYPE_CHECKING:
    from fer_batch.settings import Settings

GROUP = Group("The CNN", sort_key=2)

Data = Annotated[
    Path,
    Parameter(help="fer2013.tar.gz, fer2013.csv or icml_face_data.csv, as downloaded from Kaggle."),
]
Votes = Annotated[Path | None, Parameter(help="fer2013new.csv with the FER+ votes.")]


def register(app: App) -> None:
    """Add `predict`, `train`, `soft-labels` and `evaluate`."""
    app.command(predict, group=GROUP)
    app.command(train, group=GROUP)
    app.command(soft_labels, group=GROUP)
    app.command(evaluate, group=GROUP)


def predict(
    source: Annotated[str, Parameter(help="A file, a folder, an http(s) URL or s3://bucket/key.")],
    /,
    *,
    crop: Annotated[
        bool, Parameter(help="Treat the whole image as one face, without face detection.")
    ] = False,
    annotate: Annotated[
        Path | None,
        Parameter(
            help="Write an annotated image: to a file (PNG or JPEG) for one image, to a folder "
            "for several. Images without a face are skipped."
        ),
    ] = None,
    allow_private_addresses: Annotated[
        bool,
        Parameter(
            help="Allow a URL that leads to an address of this machine or a private network."
        ),
    ] = False,
    json: Json = False,
) -> int:
    """Classify the expression in images as happy or sad. Nothing is stored.

    Objects of a registered facility are read only as a run would read them: with a permission for
    their day, and not if they were erased. This needs FER_FACILITIES_FILE and FER_DATABASE_URL.
    """
    from fer_batch.imaging.sandbox.decoders import Decoders
    from fer_batch.predict import annotation, names
    from fer_batch.predict import prediction as module

    loaded = load_settings()
    is_scored = False
    rows = []
    with Decoders(loaded) as decoders:
        writer = annotation.AnnotationWriter(annotate, source, decoders) if annotate else None
        predictor = module.Predictor(loaded, decoders, is_crop=crop)
        images = module.read_images(source, loaded, is_private_allowed=allow_private_addresses)
        for image in images:
            prediction = predictor.predict(image)
            faces = prediction.score.faces
            is_scored = is_scored or bool(faces)
            if not json:
                sys.stdout.write(module.format_text(prediction) + "\n")
            path = writer.write(image, faces) if writer is not None else None
            if json:
                rows.append(module.to_json(prediction, path))
            elif path is not None:
                sys.stdout.write(f"Annotated image: {names.escape_text(str(path))}\n")
    if json:
        print_json(rows)
    return 0 if is_scored else EXIT_FINDINGS


def train(
    *,
    data: Data,
    votes: Votes = None,
    out: Annotated[Path, Parameter(help="Folder for the artifact and its card.")] = Path("runs"),
    name: Annotated[str, Parameter(help="Name of the artifact.")] = "fer48",
    recipe: Annotated[
        Path | None,
        Parameter(help="JSON file with the values that differ from the shipped recipe."),
    ] = None,
    candidates: Annotated[
        bool, Parameter(help="Train a small, a medium and a large network and compare them.")
    ] = False,
    epochs: Annotated[
        int | None,
        Parameter(help="Epochs before fine-tuning; default: those of the recipe."),
    ] = None,
    resume: Annotated[
        bool, Parameter(help="Continue from the checkpoint of an interrupted run.")
    ] = False,
    soft_labels: Annotated[
        Path | None, Parameter(help="Soft labels of a teacher; default: the shipped ones.")
    ] = None,
    threads: Annotated[int | None, Parameter(help="Threads to use; default: FER_THREADS.")] = None,
    json: Json = False,
) -> None:
    """Train the CNN on FER2013 and write the ONNX artifact with its card (extra `train`).

    With `--candidates`, three networks are trained with one recipe, compared in a table and a
    chart, and registered if a database is set.
    """
    from fer_batch.training import candidates as module
    from fer_batch.training import recipe as recipes
    from fer_batch.training import run

    loaded = load_settings()
    training_recipe = module.set_epochs(
        recipes.load_recipe(recipe) if recipe else recipes.Recipe(), epochs
    )
    options = (resume, threads or loaded.threads, soft_labels)
    if candidates:
        _check_database(loaded)
        rows = module.compare(
            data, votes, out, name, module.list_candidates(training_recipe), *options
        )
        if json:
            print_json(rows)
        else:
            print_table("Candidates", module.format_rows(rows))
        _register(loaded, [Path(row["card"]) for row in rows])
        return
    card = run.train(data, votes, out, name, training_recipe, *options)
    if json:
        print_json(card)
    else:
        _print_figures(card["metrics"])


def _check_database(loaded: Settings) -> None:
    """Check the database first: hours of training must not end with a failed registration."""
    from fer_batch.database import schema

    if loaded.database_url is not None:
        with schema.open_engine(loaded):
            pass


def _register(loaded: Settings, cards: Sequence[Path]) -> None:
    from fer_batch.log import get_logger
    from fer_batch.model import active_model, classifier, model_registry

    log = get_logger(__name__)
    if loaded.database_url is None:
        log.warning("not registered", reason="no database is set", hint="Set FER_DATABASE_URL")
        return
    with active_model.connect(loaded) as connection:
        for path in cards:
            model_registry.register(connection, classifier.load_artifact(path))
    log.info("registered", cnns=len(cards), hint="See `fer-batch models`")


def soft_labels(
    *,
    card: Annotated[
        list[Path],
        Parameter(
            help="Card of a teacher, written by `fer-batch train`; the mean of several is used."
        ),
    ],
    data: Data,
    out: Annotated[Path, Parameter(help="The file to write.")] = Path("runs/soft_labels.npz"),
) -> None:
    """Write the soft labels of one or more teachers, for `train --soft-labels`."""
    from fer_batch.training import distillation

    rows = distillation.write(card, data, out, load_settings().threads)
    sys.stdout.write(f"{out}: {rows} rows\n")


def evaluate(
    *,
    data: Annotated[Path | None, Parameter(help="FER2013, as downloaded from Kaggle.")] = None,
    votes: Votes = None,
    split: Annotated[str, Parameter(help="Training, PublicTest or PrivateTest.")] = "PrivateTest",
    faces: Annotated[
        Path | None,
        Parameter(
            help="An npz file instead of FER2013, with x (N×48×48 uint8) and y (0 Happy, 1 Sad, "
            "2 neither)."
        ),
    ] = None,
    card: Annotated[
        Path | None, Parameter(help="Card of the CNN; default: the active one.")
    ] = None,
    reliability: Annotated[
        Path | None, Parameter(help="Write the reliability diagram to this PNG file.")
    ] = None,
    detector: Annotated[
        bool, Parameter(help="Also count in how many of the crops the face detector finds a face.")
    ] = False,
    json: Json = False,
) -> None:
    """Evaluate a CNN on a split of FER2013, or on other labeled faces."""
    from fer_batch.errors import ConfigurationError
    from fer_batch.model import active_model, calibration, classifier, evaluation

    loaded = load_settings()
    if (data is None) == (faces is None):
        raise ConfigurationError("give either --data or --faces", "One of the two is required")
    if faces is not None and votes is not None:
        raise ConfigurationError("--votes requires --data", "Do not use --votes with --faces")
    if reliability is not None:
        calibration.check_can_draw()
        reliability.parent.mkdir(parents=True, exist_ok=True)
    cnn = classifier.load_artifact(card) if card else active_model.load_active(loaded).cnn
    if data is not None:
        rows, name = evaluation.load_split(data, votes, split), split
    elif faces is not None:
        rows, name = evaluation.load_faces(faces), faces.name
    figures = {"split": name, **evaluation.evaluate(cnn, rows, loaded.threads)}
    if detector:
        figures["detector"] = evaluation.count_detected_faces(rows, loaded)
    if reliability is not None:
        diagram = calibration.draw_reliability_diagram(
            figures["calibration"], f"{cnn.card.name} on {name}"
        )
        reliability.write_bytes(diagram)
    if json:
        print_json(figures)
    else:
        _print_figures(figures)


def _print_figures(figures: Mapping[str, Any], title: str = "Figures") -> None:
    """Print the metrics of one split, or of several by name.

    Calibration bins, conditions and the confusion matrices of reduced crops are only in --json and
    the card.
    """
    from fer_batch.model.fer2013 import CLASSES
    from fer_batch.model.probabilities import CALLED_CLASSES

    if "PrivateTest" in figures:
        for split, part in figures.items():
            _print_figures(part, split)
        return
    print_table(title, [{"figure": k, "value": _format_value(v)} for k, v in _flatten(figures)])
    for name, labels, table in (
        ("votes", CALLED_CLASSES, "What voters chose (rows) and called classes (columns)"),
        ("three", CALLED_CLASSES, "Labels (rows) and predicted classes (columns)"),
        ("seven", CLASSES, "Labels (rows) and predicted classes (columns)"),
    ):
        counts = figures.get(name, {}).get("confusion")
        if counts and any(map(any, counts)):
            rows = [
                {"label": str(label), **dict(zip(map(str, labels), row, strict=True))}
                for label, row in zip(labels, counts, strict=True)
            ]
            print_table(table, rows)
    corrupted = [
        {key: _format_value(value) for key, value in one.items()} for one in figures["robustness"]
    ]
    if corrupted:
        print_table("Happy against Sad on corrupted crops", corrupted)


def _format_value(value: object) -> object:
    return f"{value:.4f}" if isinstance(value, float) else value


def _flatten(figures: object, prefix: str = "") -> list[tuple[str, object]]:
    if not isinstance(figures, dict):
        return [(prefix, figures)]
    pairs = []
    for name, value in figures.items():
        if isinstance(value, list) or name == "method":
            continue
        pairs += _flatten(value, f"{prefix}.{name}" if prefix else name)
    return pairs
