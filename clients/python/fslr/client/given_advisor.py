"""Where users pass an advisor: an address, or an advisor in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from fslr.client.advisor_client import AdvisorClient
from fslr.errors import AttachError
from fslr.protocols import Advisor

_Attached = TypeVar("_Attached")


def attached_to(
    advisor: str | Advisor, attach: Callable[[Advisor, Callable[[], None] | None], _Attached]
) -> _Attached:
    """Attach to an advisor, with a client of its own if an address is given.

    Args:
        advisor: ``host:port`` of the service, or an advisor in this process.
        attach: Attaches to an advisor. The second argument is what to call once the result is
            closed, or None.

    Returns:
        What ``attach`` returns. If it raises, the client is closed.

    Raises:
        AttachError: The advisor is neither.
    """
    if not isinstance(advisor, str):
        if not callable(getattr(advisor, "open_run", None)):
            raise AttachError(
                f"advisor is {advisor!r}; it must be the address of the service, such as "
                "'127.0.0.1:50051', or an advisor in this process"
            )
        return attach(advisor, None)
    client = AdvisorClient(advisor)
    try:
        return attach(client, client.close)
    except BaseException:
        client.close()
        raise
