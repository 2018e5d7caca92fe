"""For scripts that put this folder on the path and import the tiny models by this name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.tiny import *  # noqa: E402, F403
