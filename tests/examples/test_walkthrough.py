"""examples/walkthrough.py ends where it should, and docs/walkthrough.md shows what it prints."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from docs.documents import ROOT, blocks

SCRIPT = ROOT / "examples" / "walkthrough.py"
((_, SHOWN),) = [block for block in blocks(ROOT / "docs" / "walkthrough.md") if block[0] == "text"]


def headings(text: str) -> list[str]:
    return re.findall(r"^## .*", text, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.reference
def test_the_walkthrough_passes_and_then_finds_what_was_broken_on_purpose() -> None:
    pytest.importorskip("transformers")
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    assert headings(SHOWN) == headings(done.stdout)
    for printed in (done.stdout, SHOWN):
        assert re.search(r"^PASSED", printed, re.MULTILINE)
        assert re.search(r"^FAILED", printed, re.MULTILINE)
        assert "first to depart: layers.1, q_norm (1.0e+00): every token, 2 times the reference" in printed
        assert "model.layers.1.self_attn.q_norm.weight differs in 32 of 32 elements" in printed
