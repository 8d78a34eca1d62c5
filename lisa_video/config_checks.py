"""Checks of the numbers in a config. Imports nothing heavy."""

from __future__ import annotations

import math

from lisa_video.errors import UserError


def at_least(least: float, section: str = "", **values: float) -> None:
    """Raise UserError where a value, by its key in `section`, is below `least` or not finite."""
    for name, value in values.items():
        if not (math.isfinite(value) and value >= least):
            raise UserError(f"{_key(section, name)}={value}: must be at least {least}")


def positive(section: str = "", **values: float) -> None:
    """Raise UserError where a value, by its key in `section`, is not above 0 or not finite."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"{_key(section, name)}={value}: must be above 0")


def _key(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name
