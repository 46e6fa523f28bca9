"""Commands about who may do what in the database: its roles, and the logins that have them."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

from fer_batch.cli import admin
from fer_batch.cli.common import Json, load_settings, show
from fer_batch.errors import ConfigurationError

Role = Literal["reader", "inspector", "writer", "eraser", "retainer", "owner"]


def register(app: App) -> None:  # noqa: ARG001
    """Add `roles` and `grant` to the commands of `db`."""
    admin.db.command(roles)
    admin.db.command(grant)


def roles(*, json: Json = False) -> None:
    """Create and repair the roles of the database and their privileges; safe to repeat.

    Run it once after the first `fer-batch db upgrade`, as the owner of the database who may create
    roles, or as a superuser. Prints what it changed.
    """
    from fer_batch.database import roles as module

    changes = module.repair(load_settings())
    show("Changed", [{"statement": statement} for statement in changes], json)


def grant(
    login: Annotated[
        str | None, Parameter(help="A login of the server. Without one, the grants are listed.")
    ] = None,
    /,
    *,
    role: Annotated[
        Role | None,
        Parameter(help="The role that the login gets; with --facility it is `inspector`."),
    ] = None,
    facility: Annotated[
        tuple[str, ...],
        Parameter(help="A facility whose rows per image it may read; may be repeated."),
    ] = (),
    revoke: Annotated[bool, Parameter(help="Take it away instead.")] = False,
    json: Json = False,
) -> None:
    """Write which login may see what, and show the grants: `db grant ada --facility north-mall`.

    Run it as the login that runs `db roles`. Create logins in PostgreSQL; this sets no password.
    """
    from fer_batch.database import roles as module

    if login is None:
        if role or facility or revoke:
            raise ConfigurationError("no login is named", "Name it: `db grant ada --role reader`")
        show("Grants", module.list_grants(load_settings()), json)
        return
    chosen: Role | None = role or ("inspector" if facility else None)
    if chosen is None:
        raise ConfigurationError(
            f"it is not said what {login} may see",
            "Add --facility for rows per image, or --role reader for published figures",
        )
    if facility and chosen != "inspector":
        raise ConfigurationError(
            f"--facility cannot be combined with --role {chosen}",
            "Only inspectors are bound to facilities",
        )
    change = module.revoke if revoke else module.grant
    show("Grants", change(load_settings(), login, chosen, facility), json)
