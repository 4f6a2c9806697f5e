"""`python -m cpumap`."""

import sys

from cpumap.cli import main

sys.exit(main())
