"""The faults: each breaks one part of a deployment for a while, and then heals it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

from tests.proxy import Proxy
from tests.redis_servers import RedisServer
from tests.redis_topologies import SentinelTrio


class Process(Protocol):
    """A process of the service."""

    def start(self) -> None:
        """Start it, and wait until it answers."""

    def kill(self) -> None:
        """End it with SIGKILL."""

    def terminate(self) -> None:
        """End it with SIGTERM."""

    def freeze(self) -> None:
        """Pause it (SIGSTOP)."""

    def thaw(self) -> None:
        """Resume it (SIGCONT)."""


class Fault(ABC):
    """A fault.

    Attributes:
        held_s: Minimum and maximum duration in seconds, not including the time that healing
            takes.
    """

    held_s: ClassVar[tuple[float, float]] = (0.1, 1.2)

    def __init__(self, target: str) -> None:
        self.target = target

    def __str__(self) -> str:
        return f"{type(self).__name__} {self.target}"

    @abstractmethod
    def inject(self) -> None:
        """Start the fault."""

    @abstractmethod
    def heal(self) -> None:
        """End the fault, and wait until the part works again."""


class _RedisFault(Fault):
    def __init__(self, target: str, server: RedisServer) -> None:
        super().__init__(target)
        self._server = server


class RedisKilled(_RedisFault):
    """SIGKILL; started again with the data on disk."""

    def inject(self) -> None:
        self._server.kill()

    def heal(self) -> None:
        self._server.start()


class RedisFrozen(_RedisFault):
    """SIGSTOP: connections stay open without answers; waiting commands are executed later."""

    def inject(self) -> None:
        self._server.freeze()

    def heal(self) -> None:
        self._server.thaw()


class RedisRestarted(_RedisFault):
    """SIGTERM, as for an upgrade."""

    held_s = (0.0, 0.5)

    def inject(self) -> None:
        self._server.stop()

    def heal(self) -> None:
        self._server.start()


class PrimaryKilled(Fault):
    """SIGKILL of the current primary; it returns as a replica of its successor."""

    held_s = (0.0, 0.1)

    def __init__(self, trio: SentinelTrio) -> None:
        super().__init__("the primary")
        self._trio = trio
        self._killed: RedisServer | None = None

    def inject(self) -> None:
        self._killed = self._trio.primary
        self._killed.kill()

    def heal(self) -> None:
        assert self._killed is not None
        self._trio.await_failover(self._killed, within_s=30)
        self._killed.start()
        self._trio.await_in_sync()


class FollowerKilled(Fault):
    """SIGKILL of a replica; the other one continues."""

    def __init__(self, trio: SentinelTrio) -> None:
        super().__init__("a replica")
        self._trio = trio
        self._killed: RedisServer | None = None

    def inject(self) -> None:
        self._killed = self._trio.replicas[0]
        self._killed.kill()

    def heal(self) -> None:
        assert self._killed is not None
        self._killed.start()
        self._trio.await_in_sync()


class _ServiceFault(Fault):
    def __init__(self, target: str, service: Process) -> None:
        super().__init__(target)
        self._service = service


class ServiceKilled(_ServiceFault):
    """SIGKILL."""

    held_s = (0.0, 0.5)

    def inject(self) -> None:
        self._service.kill()

    def heal(self) -> None:
        self._service.start()


class ServiceTerminated(_ServiceFault):
    """SIGTERM, as for an upgrade."""

    held_s = (0.0, 0.3)

    def inject(self) -> None:
        self._service.terminate()

    def heal(self) -> None:
        self._service.start()


class ServiceFrozen(_ServiceFault):
    """SIGSTOP: connections stay open, and calls wait."""

    def inject(self) -> None:
        self._service.freeze()

    def heal(self) -> None:
        self._service.thaw()


class ServiceFrozenAndKilled(_ServiceFault):
    """Calls wait for a while, and then fail."""

    held_s = (0.5, 1.2)

    def inject(self) -> None:
        self._service.freeze()

    def heal(self) -> None:
        self._service.kill()
        self._service.start()


class _LinkFault(Fault):
    def __init__(self, target: str, proxy: Proxy) -> None:
        super().__init__(target)
        self._proxy = proxy


class LinkCut(_LinkFault):
    """All connections are closed, even in the middle of a message."""

    held_s = (0.0, 0.2)

    def inject(self) -> None:
        self._proxy.cut()

    def heal(self) -> None:
        self._proxy.cut()


class LinkDelayed(_LinkFault):
    """All data arrive late."""

    def inject(self) -> None:
        self._proxy.delay_s = 0.15

    def heal(self) -> None:
        self._proxy.delay_s = 0.0


class LinkThrottled(_LinkFault):
    """Throughput is limited to a few kilobytes per second."""

    def inject(self) -> None:
        self._proxy.bytes_per_s = 4_000

    def heal(self) -> None:
        self._proxy.bytes_per_s = 0.0


class LinkStalled(_LinkFault):
    """No data pass, but connections stay open."""

    def inject(self) -> None:
        self._proxy.hold()

    def heal(self) -> None:
        self._proxy.release()


class AnswersDropped(_LinkFault):
    """Requests are executed, but their answers are lost: the caller sees a timeout or a reset."""

    def inject(self) -> None:
        self._proxy.drops_answers = True

    def heal(self) -> None:
        self._proxy.cut()
        self._proxy.drops_answers = False


REDIS_FAULTS: tuple[type[_RedisFault], ...] = (RedisKilled, RedisFrozen, RedisRestarted)
SERVICE_FAULTS: tuple[type[_ServiceFault], ...] = (
    ServiceKilled,
    ServiceTerminated,
    ServiceFrozen,
    ServiceFrozenAndKilled,
)
LINK_FAULTS: tuple[type[_LinkFault], ...] = (
    LinkCut,
    LinkDelayed,
    LinkThrottled,
    LinkStalled,
    AnswersDropped,
)
