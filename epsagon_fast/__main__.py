"""`python -m epsagon_fast` is `epsagon-fast`."""

import sys

from epsagon_fast.commands import main

if __name__ == "__main__":
    sys.exit(main())
