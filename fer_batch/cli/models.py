"""`fer-batch models`: list CNNs and which one is active; register, promote, roll back, compare."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from fer_batch.cli.common import DEFAULTS, Json, get_user, load_settings, print_json
from fer_batch.cli.model import GROUP
from fer_batch.console import print_table

if TYPE_CHECKING:
    from fer_batch.model.model_registry import Promotion

models = App(
    name="models",
    help="The CNNs: list, show, register, promote, roll back, compare.",
    group=GROUP,
    default_parameter=DEFAULTS,
)

Named = Annotated[
    str, Parameter(help="A name, the first characters of a model version, or the path of a card.")
]
Why = Annotated[str, Parameter(help="The reason, which is stored in the history.")]
By = Annotated[
    str | None, Parameter(help="Who makes the change; default: the name of the current user.")
]


def register(app: App) -> None:
    """Add `models`."""
    app.command(models)


@models.default
@models.command(name="list")
def list_models(*, json: Json = False) -> None:
    """List the CNNs: the active one first, then registered and previously active ones."""
    from fer_batch.model import active_model

    rows = active_model.list_cnns(load_settings())
    if json:
        print_json(rows)
        return
    print_table("CNNs", [_format_row(row) for row in rows])
    sys.stdout.write(f"Active: {rows[0]['name']}, {rows[0]['in_use']}\n")


def _format_row(row: dict[str, Any]) -> dict[str, Any]:
    sizes = (row["multiply_adds"], row["parameters"])
    accuracy = row["happy_sad_accuracy"]
    return {
        "version": row["model_version"][:12],
        "name": f"{row['name']} (active)" if row["in_use"] else row["name"],
        "registered": row["registered_at"] and f"{row['registered_at']:%Y-%m-%d}",
        "multiply-adds / parameters": " / ".join(f"{n / 1e6:.1f} M" if n else "–" for n in sizes),
        "Happy / Sad": accuracy and f"{accuracy:.4f}",
        "images scored": f"{row['images_scored']:,}",
    }


@models.command(name="show")
def show_card(name: Named | None = None, /, *, json: Json = False) -> None:
    """Show the card of a CNN, by default of the active one."""
    from fer_batch.model import active_model

    loaded = load_settings()
    cnn = (
        active_model.load_active(loaded).cnn
        if name is None
        else active_model.find_cnn(loaded, name)
    )
    card = cnn.card.model_dump(mode="json")
    if json:
        print_json(card)
    else:
        from fer_batch.model import model_card

        sys.stdout.write(model_card.render_markdown(card))


@models.command
def compare(
    first: Named,
    second: Named,
    /,
    *,
    facility: Annotated[str, Parameter(help="A facility id.")],
    day: Annotated[date, Parameter(help="The capture day, as YYYY-MM-DD.")],
    json: Json = False,
) -> None:
    """Score the images of one day with two CNNs and compare the results. Nothing is stored."""
    from fer_batch.facilities.loading import load_registry
    from fer_batch.model import active_model
    from fer_batch.pipeline import comparison

    loaded = load_settings()
    registry = load_registry(loaded.facilities_file, loaded).select((facility,))
    cnns = active_model.find_cnn(loaded, first), active_model.find_cnn(loaded, second)
    result = comparison.compare_cnns(
        loaded, *cnns, registry.facilities[facility], day, datetime.now(UTC)
    )
    if json:
        print_json(result)
        return
    print_table(f"{facility} on {day}, {result['images']} images", result["cnns"])
    sys.stdout.write(comparison.format_comparison(result) + "\n")


@models.command(name="register")
def register_cnn(
    card: Annotated[Path, Parameter(help="The card; the artifact must be in the same folder.")], /
) -> None:
    """Store a CNN in the database for all workers. Registering does not activate it."""
    from fer_batch.model import active_model, classifier
    from fer_batch.model import model_registry as module

    loaded = load_settings()
    cnn = classifier.load_artifact(card)
    classifier.open_artifact(
        cnn.artifact, cnn.card.artefact, 1
    )  # refuse an artifact that cannot score
    with active_model.connect(loaded) as connection:
        name = module.register(connection, cnn)
    version = active_model.compute_version(loaded, cnn.card)
    same = "with the same artifact, calibration and calling rule"
    existing = "" if name == cnn.card.name else f" as {name}, {same}"
    sys.stdout.write(f"{cnn.card.name} is registered{existing}, model version {version[:12]}\n")


@models.command
def promote(name: Named, /, *, why: Why, by: By = None) -> None:
    """Activate this CNN from the next run on. Runs in progress keep the CNN they started with."""
    from fer_batch.model import active_model, classifier
    from fer_batch.model import model_registry as module

    loaded = load_settings()
    cnn = active_model.find_cnn(loaded, name)
    classifier.open_artifact(cnn.artifact, cnn.card.artefact, 1)
    with active_model.connect(loaded) as connection:
        promotion = module.promote(connection, cnn, by or get_user(), why)
    _print_promotion(promotion)


@models.command
def rollback(*, why: Why, by: By = None) -> None:
    """Undo the newest promotion: activate the previous CNN from the next run on."""
    from fer_batch.model import active_model, classifier
    from fer_batch.model import model_registry as module

    loaded = load_settings()
    shipped = classifier.load_artifact(classifier.find_shipped_card())
    with active_model.connect(loaded) as connection:
        promotion = module.rollback(connection, shipped, by or get_user(), why)
    _print_promotion(promotion)


@models.command
def history(*, json: Json = False) -> None:
    """List every promotion and rollback, newest first: CNN, time, user and reason."""
    from fer_batch.model import active_model

    rows = active_model.list_promotions(load_settings())
    if json:
        print_json(rows)
        return
    shown = [
        {
            "on (UTC)": f"{row['promoted_at']:%Y-%m-%d %H:%M}",
            "version": row["model_version"][:12],
            "name": row["name"],
            "action": "rolled back to" if row["is_rollback"] else "promoted",
            "by": row["promoted_by"],
            "why": row["why"],
        }
        for row in rows
    ]
    print_table("Promotions", shown)


def _print_promotion(promotion: Promotion) -> None:
    from fer_batch.log import get_logger

    verb = "is active again" if promotion.is_rollback else "is promoted"
    sys.stdout.write(f"{promotion.name} {verb}, by {promotion.promoted_by}: {promotion.why}\n")
    if (card := load_settings().model_card) is not None:
        get_logger(__name__).warning(
            "FER_MODEL_CARD is set here and takes precedence", card=str(card)
        )
