"""Error replies of Redis, and what the service makes of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from redis.exceptions import ClusterDownError, RedisError, ResponseError

from advisor.errors import AuditUnavailableError, StoreUnavailableError
from advisor.store.lua import script_text
from advisor.store.redis.connection import store_errors

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "redis.md"


def translated(error: RedisError) -> Exception:
    """Return the exception that the service raises for an error of redis-py."""
    with pytest.raises(Exception, match=r".") as caught, store_errors():
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("reply", "words", "is_temporary"),
    [
        ("DENIED Running in protected mode because ...", "`requirepass`", False),
        ("invalid DB index", "raise `databases`", False),
        ("SELECT is not allowed in cluster mode", r"redis\+cluster://", False),
        ("This instance has cluster support disabled", "start redis_url with redis://", False),
        ("unknown command 'EVALSHA', with args beginning with: 'a'", "`rename-command`", False),
        (
            "Unknown Redis command called from script script: f_1, on @user_script:1.",
            "rename",
            False,
        ),
        ("Could not find scripting engine 'lua'", "allow EVAL and EVALSHA", False),
        ("NOPERM this user has no permissions to run the 'hget' command", "lacks rights", False),
        ("WRONGPASS invalid username-password pair", "percent-encode", False),
        ("NOAUTH Authentication required.", "requires a password", False),
        ("AUTH <password> called without any password configured", "Redis has none", False),
        ("max number of clients reached", "raise `maxclients`", True),
        ("-READONLY You can't write against a read only replica.", "put the primary", True),
        ("OOM command not allowed when used memory > 'maxmemory'.", "raise `maxmemory`", True),
        ("MISCONF Redis is configured to save RDB snapshots, but", "the disk may be full", True),
        ("NOREPLICAS Not enough good replicas to write.", "`min-replicas-to-write`", True),
        ("AUDITFAILED OOM command not allowed", "raise `maxmemory`", True),
        ("this command is forbidden on plan S", "Redis refuses a command .*plan S.*Rights", False),
    ],
)
def test_a_refusal_names_the_setting(reply: str, words: str, is_temporary: bool) -> None:
    error = translated(ResponseError(reply))
    assert isinstance(error, StoreUnavailableError)
    assert re.search(words, str(error)), error
    assert error.is_temporary is is_temporary
    assert "try again shortly" not in str(error)


@pytest.mark.parametrize(
    "error",
    [
        *(ResponseError(f"{word} ...") for word in ("BUSY", "LOADING", "MASTERDOWN", "TRYAGAIN")),
        ClusterDownError("Hash slot not served"),
        ResponseError("AUDITFAILED BUSY a script runs"),
    ],
)
def test_what_passes_by_itself_asks_for_patience(error: RedisError) -> None:
    raised = translated(error)
    assert isinstance(raised, StoreUnavailableError)
    assert str(raised).endswith("try again shortly")


@pytest.mark.parametrize(
    "reply",
    ["Error running script: user_script:3: nil", "wrong number of arguments for 'hset' command"],
)
def test_an_invalid_command_is_a_bug(reply: str) -> None:
    error = ResponseError(reply)
    assert translated(error) is error


def test_an_unknown_reason_of_the_audit_is_passed_on() -> None:
    error = translated(ResponseError("AUDITFAILED the stream is odd"))
    assert isinstance(error, AuditUnavailableError)
    assert "the stream is odd" in str(error)


def test_a_long_reply_is_shortened_to_one_line() -> None:
    error = translated(ResponseError("DENIED no. Second sentence.\nthird line"))
    assert "Second" not in str(error)
    assert len(str(error).splitlines()) == 1
    assert len(str(translated(ResponseError("odd " * 1000)))) < 500


def test_the_check_at_the_start_covers_the_documented_rights() -> None:
    checked = set(re.findall(r"{'([A-Z]+)'", script_text("check_commands")))
    rules = re.search(r"^ACL SETUSER advisor (?:.*\\\n)*.*$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert rules is not None
    documented = {right.upper() for right in re.findall(r"\+([a-z|]+)", rules[0])}
    otherwise = {"EVAL", "EVALSHA", "PING", "WAIT", "SELECT", "ASKING"}  # called by clients
    of_connections = {right for right in documented if "|" in right}
    assert checked == documented - otherwise - of_connections - {"INFO", "TIME"}  # for doctor
