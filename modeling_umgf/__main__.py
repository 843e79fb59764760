"""The command `python -m modeling_umgf`."""

import sys

from .tagging import main

if __name__ == "__main__":
    sys.exit(main())
