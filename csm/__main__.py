"""`python -m csm` and `torchrun -m csm`: the same as the command `csm`."""

import sys

from csm.cli import main

if __name__ == "__main__":
    sys.exit(main())
