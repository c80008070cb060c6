"""`python -m modelbuild.cli`."""

import sys

from modelbuild.cli.main import main

sys.exit(main())
