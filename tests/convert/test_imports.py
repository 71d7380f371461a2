"""Law 1 of the house: a checkpoint can be converted on a machine that has neither MindSpore nor torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FORBIDDEN = "mindspore", "torch", "transformers"

BLOCK_AND_RUN = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {forbidden!r}:
            raise ImportError(name + " is imported")

sys.meta_path.insert(0, Absent())
{body}
assert not set(sys.modules) & set({forbidden!r}), sorted(sys.modules)
"""


def run_without_frameworks(body: str, *arguments: object) -> None:
    script = BLOCK_AND_RUN.format(forbidden=FORBIDDEN, body=body)
    child = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr


def test_every_module_of_the_ground_floors_imports_alone() -> None:
    run_without_frameworks(
        "import importlib, pkgutil\n"
        "for floor in ('checkpoint', 'architectures', 'hub', 'convert', 'sample'):\n"
        "    package = importlib.import_module('msport.' + floor)\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "    [getattr(package, name) for name in package.__all__]\n"
    )


def test_sample_convert_and_inspect_run_alone(tmp_path: Path) -> None:
    run_without_frameworks(
        "from msport.cli import main\n"
        "def msport(*arguments):\n"
        "    try: main(list(arguments))\n"
        "    except SystemExit as end: assert end.code == 0, (arguments, end.code)\n"
        "sample, output = sys.argv[1:]\n"
        "msport('sample', 'gpt-oss', sample)\n"
        "msport('convert', sample, '-o', output, '--verify')\n"
        "msport('inspect', output, '--verify')\n",
        tmp_path / "sample",
        tmp_path / "out",
    )
