"""`python -m cpumap`."""

from __future__ import annotations

import sys

from cpumap.cli.main import main

sys.exit(main())
