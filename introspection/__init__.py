"""Research code on whether a language model can report thoughts placed in its activations."""

from introspection.io.version import __version__

__all__ = ["__version__"]
