"""The folder that `run` puts on the PYTHONPATH. Python imports `sitecustomize` from it by itself."""

import os
from typing import Final

FOLDER: Final = os.path.dirname(os.path.abspath(__file__))
