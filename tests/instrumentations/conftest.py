"""These tests need an environment of their own, which `make instrumentations` makes."""

import os

collect_ignore_glob = [] if os.environ.get("EPSAGON_TEST_INSTRUMENTATIONS") else ["test_*.py"]
