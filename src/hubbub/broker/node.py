"""The broker of one process: its namespaces over one engine and one clock."""

from __future__ import annotations

from ..clock import Clock, Timer
from ..engine.log import Engine
from .namespace import RETENTION_PERIOD, Namespace


class Broker:
    """Finds the namespace a host name means; keeps time for all of them."""

    def __init__(self, engine: Engine, clock: Clock, namespaces: list[Namespace]) -> None:
        self.engine = engine
        self.clock = clock
        self.namespaces = {namespace.name: namespace for namespace in namespaces}
        self._default = namespaces[0]
        # The first of those that share a name has it.
        self._by_host = {host: ns for ns in reversed(namespaces) for host in ns.gate.authority.hosts}
        self._timer: Timer | None = None

    def namespace_for(self, host: str) -> Namespace:
        """By full host name, then by its first label; whatever is unknown means the first namespace."""
        host = host.lower()
        found = self._by_host.get(host) or self.namespaces.get(host.split(".", 1)[0])
        return found or self._default

    def start(self) -> None:
        """Begins the periodic work."""
        self._timer = self.clock.call_at(self.clock.now() + RETENTION_PERIOD, self._periodic)

    def stop(self) -> None:
        """Nobody waits any longer, and what only memory knew is on its way to the disk."""
        if self._timer is not None:
            self._timer.cancel()
        for namespace in self.namespaces.values():
            for receiver in namespace.receivers.values():
                receiver.close()

    def _periodic(self) -> None:
        soonest = min(namespace.retain() for namespace in self.namespaces.values())
        moment = min(soonest, self.clock.now() + RETENTION_PERIOD)
        self._timer = self.clock.call_at(moment, self._periodic)
