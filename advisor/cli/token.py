"""``advisor token``: create, list and revoke tokens.

These commands connect to Redis directly, with the settings of the service. Run them on the same
machine as the service, or with its ``ADVISOR_REDIS_URL``. No RPC creates tokens.
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
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
    Address,
    Json,
    Project,
    date,
    describe_setting_error,
    fail,
    plain,
    print_json,
    say,
)
from advisor.cli.setting_options import with_setting_options
from advisor.cli.tables import print_table
from advisor.cli.token_store import is_refused, store_of
from advisor.errors import AdvisorError
from advisor.policy import InvalidValueError
from advisor.registry.audit import AuditOrigin
from advisor.registry.resource_names import check_id
from advisor.report.tokens import TokenRow
from advisor.server.bootstrap import opened_tokens
from advisor.server.settings import Settings
from advisor.store.redis.embedded import EmbeddedRedisError
from advisor.store.tokens import TokenStore
from fslr.environment import user_name

app = typer.Typer(help="Manage the tokens with which callers authenticate.", no_args_is_help=True)

_Answer = TypeVar("_Answer")
_PEER = "the command line"
_STORE = ("redis_url", "data_dir", "redis_timeout_s", "redis_wait_replicas")

RoleWord = StrEnum("RoleWord", {role.name: role.word for role in Role})  # type: ignore[misc]


def _with_store(
    given: dict[str, Any],
    task: Callable[[TokenStore], Awaitable[_Answer]],
) -> _Answer:
    """Run a task with the token store; an error of the store ends the command with a message."""

    async def run() -> _Answer:
        async with opened_tokens(Settings(**given)) as store:
            return await task(store)

    try:
        return asyncio.run(run())
    except ValidationError as error:
        fail(describe_setting_error(error))
    except (AdvisorError, InvalidValueError, EmbeddedRedisError) as error:
        fail(str(error))


def _origin() -> AuditOrigin:
    return AuditOrigin(datetime.now(UTC), user_name(), _PEER, uuid.uuid4().hex)


@app.command()
@with_setting_options(_STORE)
def create(
    *,
    given: dict[str, Any],
    name: Annotated[
        str, typer.Argument(help="Who will use it, or what for, such as nightly-runs.")
    ],
    role: Annotated[
        RoleWord,
        typer.Option(
            help="viewer: may read; trainer: may also request recommendations; operator: may also "
            "change profiles, aliases and policies."
        ),
    ],
    expires_days: Annotated[
        float | None,
        typer.Option(min=0.001, max=36_500, help="Days until it expires. Default: never."),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check/--no-check",
            help="Check that the service at --address, if one answers, accepts the token. "
            "Default: on.",
        ),
    ] = True,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Create a token and print it. It cannot be shown again.

    The token is written to the store that --redis-url or --data-dir names. A service that uses a
    different store does not know it: then the token is revoked again, and the command fails.
    """
    now = datetime.now(UTC)
    expiry = None if expires_days is None else now + timedelta(days=expires_days)

    async def add(store: TokenStore) -> tuple[Token, TokenRecord]:
        token = Token.new(check_id("project", "project", project))
        record = TokenRecord(
            token.project, token.id, name, Role[role.name], token.digest, now, expiry
        )
        if not await store.add(record, _origin()):
            fail(f"a token with the id {token.id} exists already; try again")
        return token, record

    token, record = _with_store(given, add)
    store = store_of(Settings(**given))
    if check and is_refused(address, token.text):
        _with_store(given, lambda tokens: tokens.revoke(record, _origin()))
        fail(
            f"the service at {address} does not know a token that was written to {store}: it uses "
            "a different store. Give its --redis-url or --data-dir, name the right service with "
            "--address, or skip this check with --no-check"
        )
    if as_json:
        print_json({"token": token.text, "store": store, **_fields(record)})
        return
    typer.echo(token.text)
    typer.echo(
        f"token {token.id}: {record.role.word} of project {token.project}, "
        f"{TokenRow.of(record, now).expiry}, in {store}; it will not be shown again. Set it as "
        "FSLR_TOKEN, or put it into a file and set FSLR_TOKEN_FILE.",
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
    """List a project's tokens, without their secrets."""

    async def list_records(store: TokenStore) -> list[TokenRecord]:
        return await store.list(check_id("project", "project", project))

    records = _with_store(given, list_records)
    if as_json:
        print_json([_fields(record) for record in records])
        return
    if not records:
        store = plain(store_of(Settings(**given)))
        say(
            f"project {plain(project)} has no tokens in {store}; `advisor token create` creates one"
        )
        return
    table = Table("id", "name", "role", "created (UTC)", "expiry", box=box.SIMPLE)
    now = datetime.now(UTC)
    for row in (TokenRow.of(record, now) for record in records):
        table.add_row(row.token_id, plain(row.name), row.role, date(row.create_time), row.expiry)
    print_table(table)


@app.command()
@with_setting_options(_STORE)
def revoke(
    *,
    given: dict[str, Any],
    token_id: Annotated[
        str, typer.Argument(metavar="ID", help="The token's id, from `advisor token list`.")
    ],
    project: Project = DEFAULT_PROJECT,
) -> None:
    """Revoke a token. Services reject it after token_cache_s (10 seconds by default)."""

    async def revoke_record(store: TokenStore) -> TokenRecord | None:
        record = await store.get(check_id("project", "project", project), token_id)
        if record is None or not await store.revoke(record, _origin()):
            return None
        return record

    record = _with_store(given, revoke_record)
    if record is None:
        fail(
            f"project {project!r} has no token {token_id!r} in {store_of(Settings(**given))}; "
            "`advisor token list` lists its tokens"
        )
    say(f"revoked token {record.id} ({plain(record.name)}, {record.role.word})")


def _fields(record: TokenRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "project": record.project,
        "role": record.role.word,
        "create_time": record.create_time.isoformat(),
        "expire_time": None if record.expire_time is None else record.expire_time.isoformat(),
    }
