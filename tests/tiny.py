"""For the scripts in ``cli/cases``, which import the tiny models by this name from this folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.tiny import *  # noqa: E402, F403
