"""`csm transcribe` for launchers that take a file."""

import sys

from csm.cli import main

if __name__ == "__main__":
    sys.exit(main(["transcribe", *sys.argv[1:]]))
