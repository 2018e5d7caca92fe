"""The version of this package and of the libraries that its numbers depend on."""

from __future__ import annotations

import platform

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """The versions of this package, Python, torch, transformers and peft, as records state them."""
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
