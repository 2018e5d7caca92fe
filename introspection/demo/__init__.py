"""The Gradio page: three answers side by side, one verdict, a halt that cannot be overlooked.

Knows: components, events, words on the page. Does not know: torch, hooks, training. Everything the
page says about a run comes from ``experiment``, which knows no Gradio.
"""

from introspection.demo.layout import build
from introspection.demo.server import launch, launch_without, run_until_stopped

__all__ = ["build", "launch", "launch_without", "run_until_stopped"]
