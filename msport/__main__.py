"""``python -m msport``, and the command ``msport``."""

from __future__ import annotations

import sys


def main() -> None:
    """The command line. Ctrl-C shows no traceback, even during the first imports."""
    try:
        from msport.cli import main as run
    except KeyboardInterrupt:
        print("msport: interrupted: nothing was written", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
