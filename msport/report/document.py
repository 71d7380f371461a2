"""Reports as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any


def utc_now() -> str:
    """The moment as every report writes it: ISO 8601, in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def to_json(document: Mapping[str, Any]) -> str:
    """`document` as one JSON text, strict: raises ValueError for a number that is not finite."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False)
