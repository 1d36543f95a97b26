"""`python -m jaxprob` is the command `jaxprob`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
