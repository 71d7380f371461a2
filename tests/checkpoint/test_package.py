"""The ground floor stands on nothing but NumPy."""

from __future__ import annotations

import subprocess
import sys

EVERY_MODULE = (
    "atomic ckpt dtypes file_pool index layout manifest protobuf reader regular_files safetensors strict_json writer"
)


def test_no_module_imports_a_framework() -> None:
    program = (
        f"import sys\nfrom msport.checkpoint import {', '.join(EVERY_MODULE.split())}\n"
        "print(*sorted({'mindspore', 'torch', 'transformers', 'safetensors', 'google.protobuf'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
