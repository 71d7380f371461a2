"""Prints hashes of products with each kind of weight: ``MSPORT_THREADS=2 product_digest.py LIBRARY``."""

from __future__ import annotations

import sys
from pathlib import Path

from native.test_linear import digest

for kind in ("float32", "bfloat16", "int8 float16", "int4 bfloat16 offsets"):
    for tokens in (1, 6, 40):
        print(digest(Path(sys.argv[1]), kind, tokens))
