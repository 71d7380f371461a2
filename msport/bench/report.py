"""A finished benchmark as text, JSON, CSV and HTML."""

from __future__ import annotations

import csv
import io
from typing import Any

from msport.bench.document import make_document
from msport.bench.figures import csv_rows
from msport.bench.measurements import Measurements
from msport.bench.page import render_page
from msport.bench.text import render_text
from msport.report.document import to_json


class BenchReport(Measurements):
    """The result of `benchmark`; ``str`` gives the text for a terminal."""

    __slots__ = ()

    def to_document(self) -> dict[str, Any]:
        """The report as JSON values; docs/schemas/bench.schema.json describes them."""
        return make_document(self)

    def to_json(self) -> str:
        """`to_document` as one JSON text."""
        return to_json(self.to_document())

    def to_csv(self) -> str:
        """One line for each workload of each engine; times in seconds, sizes in bytes, rates per second."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(csv_rows(self))
        return text.getvalue()

    def to_html(self, published: bool = False) -> str:
        """One self-contained page with charts; with `published`, also figures that others published about the model."""
        return render_page(self, published)

    def __str__(self) -> str:
        return render_text(self)
