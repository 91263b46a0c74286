"""Which store the token commands use, and whether a service uses the same one."""

from __future__ import annotations

from advisor.server.settings import Settings
from advisor.store.redis.addresses import redacted
from fslr import AdvisorClient, AuthenticationError, FslrError

_DEADLINE_S = 3.0


def store_of(settings: Settings) -> str:
    """Return the store that settings name, for messages, without passwords."""
    if settings.redis_url is not None:
        return f"the Redis at {redacted(settings.redis_url)}"
    return f"the embedded Redis of {settings.data_dir}"


def is_refused(address: str, token: str) -> bool:
    """Return whether a service answers and refuses a token as unknown.

    Args:
        address: The address of the service.
        token: The token, which has just been created.
    """
    try:
        with AdvisorClient(address, deadline_s=_DEADLINE_S, token=token) as client:
            client.status()
    except AuthenticationError:
        return True
    except FslrError:
        return False  # nothing answers there, or not to this machine
    return False
