"""Error replies of Redis that come from how it is set up, with the setting to change."""

from __future__ import annotations

import re
from dataclasses import dataclass

from redis.exceptions import AskError, ClusterDownError, RedisError, TryAgainError

_MAX_CAUSE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Refusal:
    """A reason for which Redis refuses a connection or a command.

    Attributes:
        pattern: What its error replies contain; redis-py removes some of the first words.
        problem: What is wrong.
        remedy: What to do, with the name of the setting.
        is_temporary: Whether the service may start all the same, because reads work, or because
            waiting may help.
    """

    pattern: str
    problem: str
    remedy: str
    is_temporary: bool = False


_REFUSALS = (
    Refusal(
        r"^DENIED |protected mode",
        "Redis is in protected mode, and accepts connections of its own machine only",
        "set a password (`requirepass`, or a user with ACL SETUSER) and put it into redis_url; in "
        "a private network, `protected-mode no` works too",
    ),
    Refusal(
        r"DB index is out of range|invalid DB index",
        "Redis has no database with the number in redis_url",
        "choose a lower number, or raise `databases` in redis.conf; a Cluster has only database 0",
    ),
    Refusal(
        r"SELECT is not allowed in cluster mode",
        "the server belongs to a Cluster, which has no numbered databases",
        "remove the number from redis_url, and start it with redis+cluster://",
    ),
    Refusal(
        r"unknown command 'SENTINEL'",
        "the server is not a Sentinel",
        "list Sentinels in redis_url (their default port is 26379), or start it with redis://",
    ),
    Refusal(
        r"Cluster mode is not enabled|cluster support disabled",
        "the server does not belong to a Cluster",
        "start redis_url with redis:// instead of redis+cluster://",
    ),
    Refusal(
        r"unknown (redis )?command|unknown subcommand|unsupported command|command is disabled",
        "Redis does not know a command that the service needs",
        "remove its `rename-command` line from redis.conf, or use Redis 6.2 or newer; the commands "
        "are listed under Rights in docs/how-to/redis.md",
    ),
    Refusal(
        r"scripting engine|script.* not allowed|Lua .*(disabled|not available)",
        "Redis runs no Lua scripts",
        "allow EVAL and EVALSHA; a managed Redis may have a setting for them",
    ),
    Refusal(
        r"^NOPERM|no permissions to|ACL failure in script",
        "Redis denies the service's user a command",
        "the user lacks rights: see Rights in docs/how-to/redis.md",
    ),
    Refusal(
        r"WRONGPASS|invalid (username-)?password",
        "Redis refuses the user or the password in redis_url",
        "correct them, and percent-encode special characters; `ACL LIST` shows the users",
    ),
    Refusal(
        r"NOAUTH|Authentication required|already authenticated",
        "Redis requires a password",
        "put it into redis_url, as in redis://user:password@host:port",
    ),
    Refusal(
        r"without any password configured|no password is set",
        "redis_url has a password, but Redis has none",
        "remove the password from redis_url, or set `requirepass`",
    ),
    Refusal(
        r"CERTIFICATE_VERIFY_FAILED",
        "the certificate of Redis is not trusted",
        "add ?ssl_ca_certs=FILE to redis_url, and use a host name that the certificate is issued "
        "for",
    ),
    Refusal(
        r"max number of clients reached",
        "Redis has its maximum number of connections",
        "raise `maxclients`, or close connections of other programs",
        is_temporary=True,
    ),
    Refusal(
        r"READONLY|read.?only replica",
        "the server is a read-only replica",
        "put the primary into redis_url; during a failover, wait until it has ended",
        is_temporary=True,
    ),
    Refusal(
        r"\bOOM\b|used memory > 'maxmemory'",
        "the memory of Redis is full",
        "raise `maxmemory`, or delete runs and versions that are no longer needed",
        is_temporary=True,
    ),
    Refusal(
        r"\bMISCONF\b",
        "Redis cannot write to its disk",
        "see its log: the disk may be full, or its directory not writable",
        is_temporary=True,
    ),
    Refusal(
        r"\bNOREPLICAS\b",
        "Redis has fewer replicas than `min-replicas-to-write`",
        "start the missing replicas, or lower that setting",
        is_temporary=True,
    ),
)
# A failover, slots that move, a server that loads its data: nothing is set up wrongly.
_PASSING = re.compile(r"^(BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|TRYAGAIN)\b")
# What a server replies to a command or script that is wrong.
_BUG = re.compile(
    r"user_script|Error (compiling|running) script|wrong number of arg|syntax error|not an integer"
    r"|not a valid|Protocol error|CROSSSLOT",
    re.IGNORECASE,
)
CLUSTER_NODE = Refusal(
    "",
    "the server belongs to a Cluster",
    "start redis_url with redis+cluster://",
)
"""For a single server that answers as a node of a Cluster does."""
_UNKNOWN = Refusal(
    "",
    "Redis refuses a command",
    "see its configuration and log, and Rights in docs/how-to/redis.md",
)


def find_refusal(text: str) -> Refusal | None:
    """Return the known refusal that an error reply reports, or None.

    Args:
        text: The error reply.
    """
    for refusal in _REFUSALS:
        if re.search(refusal.pattern, text, re.IGNORECASE):
            return refusal
    return None


def is_passing(error: RedisError, text: str) -> bool:
    """Return whether an error passes by itself, such as during a failover.

    Args:
        error: The error.
        text: Its text, without the words of our scripts.
    """
    return isinstance(error, (AskError, ClusterDownError, TryAgainError)) or bool(
        _PASSING.search(text)
    )


def refusal_of(error: RedisError, text: str) -> Refusal:
    """Return the refusal that an error reply reports.

    Args:
        error: The error.
        text: Its text, without the words of our scripts.

    Raises:
        RedisError: The error itself, if a command or script is wrong, which is a bug.
    """
    refusal = find_refusal(text)
    if refusal is None and _BUG.search(text):
        raise error
    return refusal or _UNKNOWN


def shortened(text: str) -> str:
    """Return the first sentence of an error reply, in one line."""
    line = " ".join(text.split()).split(". ")[0]
    if len(line) > _MAX_CAUSE_CHARACTERS:
        line = f"{line[: _MAX_CAUSE_CHARACTERS - 4]} ..."
    return line
