"""The report of a validation."""

from __future__ import annotations

from dataclasses import dataclass

from msport.report.document import to_json
from msport.validate.findings import Findings
from msport.validate.views.document import document_of
from msport.validate.views.text import render_text


@dataclass(frozen=True, slots=True)
class Report(Findings):
    """The result of `validate_model`: the findings, as text (``str``) and as JSON."""

    def to_json(self) -> str:
        """The report as one JSON document; ``docs/schemas/validate.schema.json`` describes it."""
        return to_json(document_of(self))

    def __str__(self) -> str:
        return render_text(self)
