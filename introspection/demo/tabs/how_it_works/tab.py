"""The tab that explains: formula, picture, words, and what all of this does not show.

The text is ``templates/about.html``; every number in it is read from what is loaded.
"""

from __future__ import annotations

import gradio as gr
from markupsafe import Markup

from introspection.demo.engine.demo_model import DemoModel
from introspection.demo.shared.templates import render
from introspection.demo.shared.widgets import TabContext

ID, LABEL = "about", "How it works"
STEP = 44  # height of a layer in the picture, with the gap above it


def diagram(layer: int, depth: int, adapter: bool = True) -> Markup:
    """Layers from bottom to top, the arrow behind the injected one, the adapter above it."""
    last = depth - 1
    names = [f"layer {at}" for at in sorted({0, layer, last})]
    for above, gap in ((last, last - layer > 1), (layer, layer > 1)):
        if gap:
            names.insert(names.index(f"layer {above}"), "…")
    target = names.index(f"layer {layer}")
    foot = STEP * len(names)  # where the question stands; y grows downwards
    boxes = [
        {"name": name, "y": foot - STEP * at, "trained": adapter and at > target}
        for at, name in enumerate(names)
    ]
    remark: tuple[str, ...] = ()
    if target < len(names) - 1:
        remark = ("adapter: says", "what came in") if adapter else ("no adapter", "is loaded")
    label = (
        f"A stack of {depth} layers. The concept vector is added to the output of layer {layer}. "
    )
    label += "The adapter sits in the layers above." if adapter else "No adapter is loaded."
    return render(
        "how_it_works/diagram.html",
        label=label,
        boxes=boxes,
        foot=foot,
        y=foot - STEP * target - 38,  # between layer L and the next: its output
        remark=remark,
    )


def explanation(model: DemoModel) -> Markup:
    """The whole text."""
    loaded, info = model.loaded, model.loaded.adapter
    norm = f"{loaded.norm:,.0f}" if loaded.norm >= 100 else f"{loaded.norm:.3g}"
    words = f"{len(info.baseline):,} everyday words" if info and info.baseline else "everyday words"
    return render(
        "how_it_works/about.html",
        adapter=loaded.adapter_name if model.offered else "",
        layer=loaded.layer,
        depth=model.depth,
        norm=norm,
        diagram=diagram(loaded.layer, model.depth, info is not None),
        baseline=words,
        info=info,
    )


def add(tab: TabContext) -> None:
    """The tab's one component; call it inside ``gr.Tab``."""
    gr.HTML(explanation(tab.model), elem_id="about")
