"""For the scripts in ``cli/cases``, which import it by this name from this folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.fake_hub import *  # noqa: E402, F403
