"""Documents beside the schemas that docs/ ships."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

DOCS = Path(__file__).parents[2] / "docs"


def check_schema(document: Any, name: str) -> None:
    """Raises `jsonschema.ValidationError` unless `document` is what docs/schemas/`name` says."""
    schema = json.loads((DOCS / "schemas" / name).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(document)
