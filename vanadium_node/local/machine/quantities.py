"""Quantities of the API: `500m`, `64Mi`, `2`, `1e3`."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Final

_BINARY: Final = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def quantity(text: str) -> Decimal | None:
    """Return the value of a quantity, None for a text that is none."""
    for suffix, power in _BINARY.items():
        if text.endswith(suffix):
            number = _number(text[: -len(suffix)])
            return None if number is None else number * 1024**power
    number = _number(text)
    if number is not None:
        return number
    number = _number(text[:-1])
    exponent = _DECIMAL.get(text[-1:])
    return None if number is None or exponent is None else number * Decimal(10) ** exponent


def in_units_of(text: str, divisor: str) -> str | None:
    """Return a quantity as a whole number of `divisor`, rounded up; None where one of the two is no quantity."""
    value, unit = quantity(text), quantity(divisor or "1")
    if value is None or not unit:
        return None
    return str((value / unit).to_integral_value(ROUND_CEILING))


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
