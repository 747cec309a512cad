"""`python -m raftkv.cli`."""

import sys

from raftkv.cli.main import main

sys.exit(main())
