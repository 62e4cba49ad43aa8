"""python -m recbole_dpr <command>: train, and use what was trained."""

import sys

from recbole_dpr.commands import main

sys.exit(main())
