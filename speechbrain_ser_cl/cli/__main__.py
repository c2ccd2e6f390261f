"""Runs ``ser-cl`` as ``python -m speechbrain_ser_cl.cli``, if it is not on the path."""

import sys

from speechbrain_ser_cl.cli import main

if __name__ == "__main__":
    sys.exit(main())
