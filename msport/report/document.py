"""Reports as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timezone
from typing import Any


def utc_now() -> str:
    """The current time as in every report: ISO 8601, in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def to_json(document: Mapping[str, Any]) -> str:
    """`document` as strict JSON text. Raises ValueError for a number that is not finite."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False)


def json_values(value: Any) -> Any:
    """`value` as JSON values: a dataclass becomes an object, an array lists, a number that is not finite None."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, tuple | list):
        return [json_values(each) for each in value]
    if isinstance(value, Mapping):
        return {key: json_values(each) for key, each in value.items()}
    if is_dataclass(value):
        return {field.name: json_values(getattr(value, field.name)) for field in fields(value)}
    return json_values(value.tolist())  # a NumPy array or scalar
