"""Several appends as one: the part of `Engine.together` that is the same for every engine.

Not here: what an append is made of, how several are merged, and how their sequences are taken back (each
engine knows its own).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from .log import EngineError, Undone

G = TypeVar("G")


class Joint(Generic[G]):
    """Appends that wait for those that belong to them.

    `submit` takes the appends of one whole; `undo` takes back the sequences of some and tells their callers.
    """

    __slots__ = ("_submit", "_undo", "parts")

    def __init__(
        self, submit: Callable[[list[G]], object], undo: Callable[[list[G], EngineError], object]
    ) -> None:
        self._submit = submit
        self._undo = undo
        self.parts: list[G] | None = None
        """Where an append goes now; None: nothing is being joined."""

    @contextmanager
    def together(self) -> Iterator[None]:
        """One inside another belongs to it, but can fail by itself."""
        outermost = self.parts is None
        if outermost:
            self.parts = []
        parts = self.parts
        assert parts is not None
        mark = len(parts)
        try:
            yield
        except BaseException:
            undone = parts[mark:]
            del parts[mark:]
            if outermost:
                self.parts = None
            self._undo(undone, Undone("something that belongs to it could not be done"))
            raise
        if outermost:
            self.parts = None
            if parts:
                self._submit(parts)
