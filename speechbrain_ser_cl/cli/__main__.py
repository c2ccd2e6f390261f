"""``python -m speechbrain_ser_cl.cli``, where the command is not on the path."""

import sys

from speechbrain_ser_cl.cli import main

if __name__ == "__main__":
    sys.exit(main())
