"""Sizes as text: ``5GB``, ``400MB``, ``1GiB``."""

from __future__ import annotations

import re
from decimal import Decimal

from msport.errors import UsageError

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.ASCII | re.IGNORECASE)


def parse_size(value: int | str) -> int:
    """Bytes of `value`: a number of bytes, or text with a decimal (kB, MB, GB, TB) or binary (KiB, MiB, GiB, TiB) unit.

    Raises UsageError for anything else, and for sizes below one byte.
    """
    if isinstance(value, int):
        nbytes = value
    else:
        match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None or match[2].lower() not in _UNITS:
            raise UsageError(f"{value!r} is not a size; write for example 5GB, 400MB or 1GiB")
        nbytes = int(Decimal(match[1]) * _UNITS[match[2].lower()])
    if nbytes < 1:
        raise UsageError(f"the size {value!r} is less than one byte; write for example 5GB, 400MB or 1GiB")
    return nbytes


def format_size(nbytes: int) -> str:
    """`nbytes` with three significant digits and a decimal unit: ``13.8 GB``."""
    size = float(nbytes)
    units = iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while size >= 999.5 and unit != "TB":
        size, unit = size / 1000, next(units)
    digits = 0 if unit == "B" or size >= 99.95 else 1 if size >= 9.995 else 2
    return f"{size:.{digits}f} {unit}"
