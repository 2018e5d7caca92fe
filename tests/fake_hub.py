"""For scripts that put this folder on the path and import it by this name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.fake_hub import *  # noqa: E402, F403
