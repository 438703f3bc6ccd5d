"""How hard the property tests try: quick and repeatable by default, for hours with HYPOTHESIS_PROFILE=long."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_CHECKS = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
settings.register_profile(
    "quick", max_examples=60, derandomize=True, deadline=None, suppress_health_check=_CHECKS
)
settings.register_profile(
    "long", max_examples=20_000, deadline=None, suppress_health_check=_CHECKS, print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
