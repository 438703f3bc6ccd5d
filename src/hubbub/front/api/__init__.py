"""Hubbub's own JSON API, its health and its metrics."""

from .api import Api
from .health import Probe

__all__ = ["Api", "Probe"]
