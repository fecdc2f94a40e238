"""`python -m lifesign`: the same as the command `lifesign`."""

import sys

from lifesign.cli import main

if __name__ == "__main__":
    sys.exit(main())
