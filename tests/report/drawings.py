"""What a drawing's text is, and where it ends."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator

from msport.report.formatting import display_width

# Of the 12 pixels of the style: narrower than any sans-serif sets most letters, so that what leaves the paper does.
_CHARACTER = 6.0


def outside(page: str) -> Iterator[str]:
    """The texts of the drawings in `page` that leave their paper."""
    for part in page.split("<svg")[1:]:
        drawing = ET.fromstring("<svg" + part.partition("</svg>")[0] + "</svg>")
        _, _, right, bottom = map(float, drawing.attrib["viewBox"].split())
        for text in drawing.iter("text"):
            label = text.text or ""
            long = _CHARACTER * display_width(label)
            begin = (
                float(text.attrib["x"]) - long * {"start": 0.0, "middle": 0.5, "end": 1.0}[text.attrib["text-anchor"]]
            )
            if begin < 0.0 or begin + long > right or not 0.0 < float(text.attrib["y"]) <= bottom:
                yield label
