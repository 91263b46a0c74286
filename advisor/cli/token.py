"""``advisor token``: who may call, made by whoever has the store.

These commands open Redis themselves, with the settings of the service (run them where it runs, or
with its ``ADVISOR_REDIS_URL``): no call to the service makes a token.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError
from rich import box
from rich.table import Table

from advisor.auth.roles import Role
from advisor.auth.tokens import Token, TokenRecord
from advisor.cli.common import (
    DEFAULT_PROJECT,
    Json,
    Project,
    console,
    fail,
    plain,
    print_json,
    say,
    setting_problem,
)
from advisor.cli.setting_options import with_setting_options
from advisor.errors import AdvisorError
from advisor.policy import InvalidValueError
from advisor.registry.audit import AuditOrigin
from advisor.registry.resource_names import check_id
from advisor.server.bootstrap import opened_tokens
from advisor.server.settings import Settings
from advisor.store.redis.embedded import EmbeddedRedisError
from advisor.store.tokens import TokenStore
from fslr.environment import user_name

app = typer.Typer(help="Tokens: who may call the service, and what for.", no_args_is_help=True)

_Answer = TypeVar("_Answer")
_PEER = "the command line"
_STORE = ("redis_url", "data_dir", "redis_timeout_s", "redis_wait_replicas")

RoleWord = StrEnum("RoleWord", {role.name: role.word for role in Role})  # type: ignore[misc]


def _with_store(
    given: dict[str, Any],
    task: Callable[[TokenStore], Awaitable[_Answer]],
) -> _Answer:
    """Carry out a task with the store of tokens; its errors end the command with a message."""

    async def run() -> _Answer:
        async with opened_tokens(Settings(**given)) as store:
            return await task(store)

    try:
        return asyncio.run(run())
    except ValidationError as error:
        fail(setting_problem(error))
    except (AdvisorError, InvalidValueError, EmbeddedRedisError) as error:
        fail(str(error))


def _origin() -> AuditOrigin:
    return AuditOrigin(datetime.now(UTC), user_name(), _PEER, uuid.uuid4().hex)


@app.command()
@with_setting_options(_STORE)
def create(
    *,
    given: dict[str, Any],
    name: Annotated[str, typer.Argument(help="Whose it is, or what for, such as nightly-runs.")],
    role: Annotated[
        RoleWord,
        typer.Option(
            help="viewer: read; trainer: also ask for recommendations; operator: also write "
            "profiles and policies."
        ),
    ],
    expires_days: Annotated[
        float | None,
        typer.Option(min=0.001, max=36_500, help="Days until it ends. Default: never."),
    ] = None,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Make a token and print it: the only time that it is seen."""
    now = datetime.now(UTC)
    ends = None if expires_days is None else now + timedelta(days=expires_days)

    async def made(store: TokenStore) -> tuple[Token, TokenRecord]:
        token = Token.new(check_id("project", "project", project))
        record = TokenRecord(
            token.project, token.id, name, Role[role.name], token.digest, now, ends
        )
        if not await store.add(record, _origin()):
            fail(f"a token with the id {token.id} is there already; try again")
        return token, record

    token, record = _with_store(given, made)
    if as_json:
        print_json({"token": token.text, **_fields(record)})
        return
    typer.echo(token.text)
    typer.echo(
        f"token {token.id}: {record.role.word} of project {token.project}, {_ends(record)}; it is "
        "not shown again. Give it to its holder as FSLR_TOKEN, or in a file as FSLR_TOKEN_FILE.",
        err=True,
    )


@app.command("list")
@with_setting_options(_STORE)
def list_(
    *,
    given: dict[str, Any],
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show a project's tokens, without what is secret of them."""

    async def listed(store: TokenStore) -> list[TokenRecord]:
        return await store.list(check_id("project", "project", project))

    found = _with_store(given, listed)
    if as_json:
        print_json([_fields(record) for record in found])
        return
    if not found:
        say(f"project {plain(project)} has no tokens; `advisor token create` makes one")
        return
    table = Table("id", "name", "role", "created (UTC)", "ends", box=box.SIMPLE)
    for record in found:
        table.add_row(
            record.id,
            plain(record.name),
            record.role.word,
            f"{record.create_time:%Y-%m-%d %H:%M}",
            _ends(record),
        )
    console.print(table)


@app.command()
@with_setting_options(_STORE)
def revoke(
    *,
    given: dict[str, Any],
    token_id: Annotated[
        str, typer.Argument(metavar="ID", help="The token's id, as `list` shows it.")
    ],
    project: Project = DEFAULT_PROJECT,
) -> None:
    """Take a token away; services refuse it within their token_cache_s (10 seconds)."""

    async def revoked(store: TokenStore) -> TokenRecord | None:
        record = await store.get(check_id("project", "project", project), token_id)
        if record is None or not await store.revoke(record, _origin()):
            return None
        return record

    record = _with_store(given, revoked)
    if record is None:
        fail(
            f"project {project!r} has no token {token_id!r}; `advisor token list` shows those that "
            "it has"
        )
    say(f"revoked token {record.id} ({plain(record.name)}, {record.role.word})")


def _ends(record: TokenRecord) -> str:
    if record.expire_time is None:
        return "never ends"
    over = " (over)" if record.expire_time <= datetime.now(UTC) else ""
    return f"ends {record.expire_time:%Y-%m-%d %H:%M} UTC{over}"


def _fields(record: TokenRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "project": record.project,
        "role": record.role.word,
        "create_time": record.create_time.isoformat(),
        "expire_time": None if record.expire_time is None else record.expire_time.isoformat(),
    }
