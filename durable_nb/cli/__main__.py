"""`python -m durable_nb.cli`: the command without its script."""

import sys

from durable_nb.cli import main

if __name__ == "__main__":
    sys.exit(main())
