"""One fuzzer in this process, which it ends: ``python -m fuzz.engine TARGET FOLDER [libFuzzer's options]``."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import atheris

# Coverage guides the search through these modules; they must not be imported before.
with atheris.instrument_imports(include=["msport.checkpoint", "msport.convert"]):
    from fuzz.targets import TARGETS

# Of the processor's time for one input: a machine that stands still for a while is no finding.
SLOWEST_SECONDS = 10
# Beyond libFuzzer's own limit, which looks once a second: an allocation of this size fails at once.
ADDRESS_SPACE = 4 << 30


def main() -> None:
    target, folder = TARGETS[sys.argv[1]], Path(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))

    def check(content: bytes) -> None:
        begin = time.process_time()
        target.check(folder / "input", content)
        seconds = time.process_time() - begin
        assert seconds < SLOWEST_SECONDS, f"{seconds:.0f} seconds for one input"

    atheris.Setup([sys.argv[0], *sys.argv[3:]], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
