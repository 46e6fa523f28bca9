"""`fer-batch models`: which CNNs there are, which is used and why; promote, roll back, compare."""

from __future__ import annotations

import getpass
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from fer_batch.cli.common import DEFAULTS, Json, print_json, print_table, settings
from fer_batch.cli.model import GROUP
from fer_batch.errors import ConfigurationError

if TYPE_CHECKING:
    from fer_batch.models import Promotion

models = App(
    name="models",
    help="The CNNs: which there are, which one is used and why.",
    group=GROUP,
    default_parameter=DEFAULTS,
)

Named = Annotated[
    str, Parameter(help="A name, the first characters of a model version, or a card's path.")
]
Why = Annotated[str, Parameter(help="The reason, for the history.")]
By = Annotated[str | None, Parameter(help="Who does it; none means the user of this machine.")]


def register(app: App) -> None:
    app.command(models)


@models.default
@models.command(name="list")
def list_models(*, json: Json = False) -> None:
    """List the CNNs: the one in use first, then those that are registered or were used before."""
    from fer_batch import choice

    rows = choice.overview(settings())
    if json:
        print_json(rows)
        return
    print_table("CNNs", [_shown(row) for row in rows])
    sys.stdout.write(f"In use: {rows[0]['name']}, {rows[0]['in_use']}\n")


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    sizes = (row["multiply_adds"], row["parameters"])
    accuracy = row["happy_sad_accuracy"]
    return {
        "version": row["model_version"][:12],
        "name": f"{row['name']} (in use)" if row["in_use"] else row["name"],
        "registered": row["registered_at"] and f"{row['registered_at']:%Y-%m-%d}",
        "multiply-adds / parameters": " / ".join(f"{n / 1e6:.1f} M" if n else "–" for n in sizes),
        "Happy / Sad": accuracy and f"{accuracy:.4f}",
        "images scored": f"{row['images_scored']:,}",
    }


@models.command(name="show")
def show_card(name: Named | None = None, /, *, json: Json = False) -> None:
    """Show the card of a CNN, by default of the one in use."""
    from fer_batch import choice

    loaded = settings()
    cnn = choice.in_use(loaded).cnn if name is None else choice.find(loaded, name)
    card = cnn.card.model_dump(mode="json")
    if json:
        print_json(card)
    else:
        from fer_batch import model_card

        sys.stdout.write(model_card.as_markdown(card))


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
    """Score one day's images with two CNNs and compare what they say. Nothing is stored."""
    from fer_batch import choice, comparison, registry

    loaded = settings()
    (known,) = registry.select(registry.load(loaded.facilities_file, loaded), (facility,)).values()
    cnns = choice.find(loaded, first), choice.find(loaded, second)
    found = comparison.compare(loaded, *cnns, known, day, datetime.now(UTC))
    if json:
        print_json(found)
        return
    print_table(f"{facility} on {day}, {found['images']} images", found["cnns"])
    sys.stdout.write(comparison.as_text(found) + "\n")


@models.command(name="register")
def register_cnn(
    card: Annotated[Path, Parameter(help="The card; the artefact lies beside it.")], /
) -> None:
    """Write a CNN into the database, so that every worker has it. It is not used by that."""
    from fer_batch import choice, classifier
    from fer_batch import models as module

    loaded = settings()
    cnn = classifier.load_artefact(card)
    classifier.open_artefact(cnn.artefact, cnn.card.artefact, 1)  # what cannot score stays out
    with choice.connected(loaded) as connection:
        name = module.register(connection, cnn)
    version = choice.version(loaded, cnn.card)
    again = "" if name == cnn.card.name else f" as {name}, with the same artefact and threshold"
    sys.stdout.write(f"{cnn.card.name} is registered{again}, model version {version[:12]}\n")


@models.command
def promote(name: Named, /, *, why: Why, by: By = None) -> None:
    """Use this CNN from the next run on. Runs under way end with the one that they began with."""
    from fer_batch import choice, classifier
    from fer_batch import models as module

    loaded = settings()
    cnn = choice.find(loaded, name)
    classifier.open_artefact(cnn.artefact, cnn.card.artefact, 1)
    with choice.connected(loaded) as connection:
        done = module.promote(connection, cnn, by or _user(), why)
    _say(done)


@models.command
def rollback(*, why: Why, by: By = None) -> None:
    """Take the newest promotion back: use the CNN before it from the next run on."""
    from fer_batch import choice, classifier
    from fer_batch import models as module

    loaded = settings()
    shipped = classifier.load_artefact(classifier.shipped_card())
    with choice.connected(loaded) as connection:
        done = module.rollback(connection, shipped, by or _user(), why)
    _say(done)


@models.command
def history(*, json: Json = False) -> None:
    """List every promotion and rollback, newest first: which CNN, when, who, why."""
    from fer_batch import choice

    rows = choice.history(settings())
    if json:
        print_json(rows)
        return
    shown = [
        {
            "on (UTC)": f"{row['promoted_at']:%Y-%m-%d %H:%M}",
            "version": row["model_version"][:12],
            "name": row["name"],
            "what": "rolled back to" if row["is_rollback"] else "promoted",
            "by": row["promoted_by"],
            "why": row["why"],
        }
        for row in rows
    ]
    print_table("Promotions", shown)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        raise ConfigurationError("the user of this machine has no name", "Say --by") from None


def _say(done: Promotion) -> None:
    from fer_batch.log import logger

    verb = "is in use again" if done.is_rollback else "is promoted"
    sys.stdout.write(f"{done.name} {verb}, by {done.promoted_by}: {done.why}\n")
    if (card := settings().model_card) is not None:
        logger(__name__).warning("FER_MODEL_CARD is set here and wins", card=str(card))
