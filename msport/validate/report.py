"""The outcome of a validation, which can print itself."""

from __future__ import annotations

from dataclasses import dataclass

from msport.report.document import to_json
from msport.validate.findings import Findings
from msport.validate.views.document import document_of
from msport.validate.views.text import render_text


@dataclass(frozen=True, slots=True)
class Report(Findings):
    """What `validate_model` gives: the findings, in words and as JSON."""

    def to_json(self) -> str:
        """The report as one JSON document, which ``docs/schemas/validate.schema.json`` describes."""
        return to_json(document_of(self))

    def __str__(self) -> str:
        return render_text(self)
