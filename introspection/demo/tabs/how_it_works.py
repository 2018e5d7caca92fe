"""The tab that explains: formula, picture, words, and what all of this does not show.

Knows: the loaded model's and its adapter's own numbers. Does not know: runs, measured rates. Every
number on it is read from what is loaded.
"""

from __future__ import annotations

from html import escape

import gradio as gr

from introspection.demo.engine.experiment import DemoModel
from introspection.models.adapters.adapter_info import AdapterInfo

__all__ = ["add", "diagram", "explanation"]

GLOSSARY = (
    (
        "residual stream",
        "the numbers that every layer of the network reads and adds to, one list per token",
    ),
    (
        "concept vector",
        "the direction in which the stream moves when the text is about a concept, "
        "measured against everyday words and scaled to length one",
    ),
    ("injection", "adding that vector to the stream at one layer while the model reads or writes"),
    ("strength ρ", "the length of what is added, in typical lengths of the stream at that layer"),
    (
        "adapter",
        "a small set of trained weights (LoRA) in the layers above the injection; without "
        "it the model is untouched",
    ),
    ("self-report", "what the model writes when it is asked about injected thoughts"),
    ("false positive", "a reported thought, or a halt, although nothing was injected"),
    ("unseen concept", "one whose word and forms never occurred in training"),
    ("halt", "the word HALT at the end of a report; generation is ended there by the program"),
)
LIMITS = (
    "It does not show consciousness, feeling or a private inner view. The model was trained to put "
    "one planted direction into words.",
    "A plain linear reader at the same layer finds the vector too, without any training of the "
    "model: see the token strip under each run. What training adds is that the model says it.",
    "It says little about thoughts that arise by themselves: a vector that is added from outside is "
    "louder and cleaner than anything the model does on its own.",
    "Something added is not yet a thought: other disturbances, such as a random vector, may be "
    "reported too. The controls under “How often is it wrong?” say how often.",
    "The question is a cue. It asks about injected thoughts, so the model need not come upon the "
    "idea by itself; answers with nothing injected show what the question alone brings about.",
    "It is one model, and the default one is small. What it learned need not hold for larger models, "
    "or for a model that nobody trained to report.",
    "The halt is a demonstration, not a safeguard: it misses some harmful thoughts, and it knows "
    "nothing of harmful text.",
)


def diagram(layer: int, depth: int, adapter: bool = True) -> str:
    """Layers from bottom to top, the arrow behind the injected one, the adapter above it."""
    last = depth - 1
    names = [f"layer {at}" for at in sorted({0, layer, last})]
    for above, gap in ((last, last - layer > 1), (layer, layer > 1)):
        if gap:
            names.insert(names.index(f"layer {above}"), "…")
    target = names.index(f"layer {layer}")
    foot = 44 * len(names)  # where the question stands; y grows downwards
    parts = [f'<path d="M165 8 V{foot + 10}" class="arrow stream"/>']
    for at, name in enumerate(names):
        y = foot - 44 * at
        kind = "above" if adapter and at > target else "box"
        parts.append(
            f'<rect x="110" y="{y - 32}" width="110" height="32" rx="6" class="{kind}"/>'
            f'<text x="165" y="{y - 11}" text-anchor="middle">{escape(name)}</text>'
        )
    y = foot - 44 * target - 38  # between layer L and the next: its output
    parts.append(
        f'<path d="M8 {y} H150" class="arrow"/><path d="M148 {y - 7} L162 {y} L148 {y + 7} Z" '
        f'class="tip"/><text x="8" y="{y - 10}">+ ρ · n̄ · v</text>'
    )
    if target < len(names) - 1:
        said = ("adapter: says", "what came in") if adapter else ("no adapter", "is loaded")
        parts += [
            f'<text x="230" y="{y - 26 + 18 * i}">{line}</text>' for i, line in enumerate(said)
        ]
    parts.append(f'<text x="165" y="{foot + 28}" text-anchor="middle">the question</text>')
    label = (
        f"A stack of {depth} layers. The concept vector is added to the output of layer {layer}. "
    )
    label += "The adapter sits in the layers above." if adapter else "No adapter is loaded."
    return (
        f'<svg class="diagram" viewBox="0 0 340 {foot + 36}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _training(info: AdapterInfo | None) -> str:
    """What the loaded adapter says of its own training."""
    if info is None:
        return "No adapter is loaded: the model answers as it came, untrained in reporting."
    said = f"The one that is loaded was trained on {len(info.trained):,} concepts of the catalogue"
    if info.vocabulary:
        said += f" and {len(info.vocabulary):,} further words and phrases"
    low, high = info.strengths
    said += (
        f", at strengths from {low:g} to {high:g}. Among the examples are questions and texts with "
        "nothing injected, for which the right answer is a plain no."
    )
    if info.halts:
        said += f" It writes HALT for harmful concepts; {len(info.harmful):,} were trained."
    return said


def _typical(norm: float) -> str:
    return f"{norm:,.0f}" if norm >= 100 else f"{norm:.3g}"


def explanation(experiment: DemoModel) -> str:
    loaded, info = experiment.loaded, experiment.loaded.adapter
    whose = ""
    if experiment.offered:
        name = escape(loaded.adapter_name)
        whose = (
            f'<p class="reading">Numbers of the first adapter on offer, <code>{name}</code>.</p>'
        )
    terms = "".join(f"<dt>{escape(t)}</dt><dd>{escape(d)}</dd>" for t, d in GLOSSARY)
    limits = "".join(f"<li>{escape(limit)}</li>" for limit in LIMITS)
    words = f"{len(info.baseline):,} everyday words" if info and info.baseline else "everyday words"
    return (
        f'<div class="about"><h2 class="tab-title">How it works</h2>{whose}'
        '<p class="formula">h ← h + ρ · n̄ · v</p>'
        f"<p>At layer {loaded.layer} of {experiment.depth} (the first is layer 0), and only there, the "
        "vector <em>v</em> of a concept is added to the residual stream <em>h</em>. <em>n̄</em> is the "
        f"stream’s typical length there, about {_typical(loaded.norm)}, so a strength ρ of 1 means: as "
        "loud as everything else together. The text of the question never holds the concept.</p>"
        f"{diagram(loaded.layer, experiment.depth, info is not None)}"
        "<h3>Where the vector comes from</h3><p>The model reads a short sentence about the concept, "
        f"and the same sentence about {words}. What it holds for the concept, minus the mean over the "
        "everyday words, scaled to length one, is the concept vector. A word that you type is read at "
        "that moment.</p>"
        "<h3>What is trained</h3><p>The adapter is a small addition (LoRA) to the layers above the "
        "injection; the rest of the model stays as it is. From examples with known right answers it "
        f"learns to put the direction into words. {escape(_training(info))}</p>"
        f"<h3>Words</h3><dl>{terms}</dl><h3>What this does not show</h3><ul>{limits}</ul></div>"
    )


def add(experiment: DemoModel) -> None:
    """The tab's one component; call it inside ``gr.Tab``."""
    gr.HTML(explanation(experiment), elem_id="about")
