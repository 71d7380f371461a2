"""``python -m msport``."""

from msport.cli import main

if __name__ == "__main__":
    main()
