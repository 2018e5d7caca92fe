"""The version of this package, and of what its numbers were computed with."""

from __future__ import annotations

import platform

__all__ = ["__version__", "versions"]

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """What the numbers were computed with."""
    import peft
    import torch
    import transformers

    return {
        "introspection": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }
