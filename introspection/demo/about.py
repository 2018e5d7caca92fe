"""The tab that explains: formula, picture, words, and what all of this does not show.

Knows: the loaded model's own numbers. Does not know: runs.
"""

from __future__ import annotations

from html import escape

import gradio as gr

from introspection.demo.experiment import Experiment

__all__ = ["add", "diagram", "explanation"]

GLOSSARY = (
    (
        "residual stream",
        "the numbers that every block of the network reads and adds to, one list per token",
    ),
    (
        "concept vector",
        "the direction in which the stream moves when the text is about a concept, "
        "measured against everyday words and scaled to length one",
    ),
    ("injection", "adding that vector to the stream at one block while the model reads or writes"),
    ("strength ρ", "the length of what is added, in typical lengths of the stream at that block"),
    (
        "adapter",
        "a small set of trained weights (LoRA) in the blocks above the injection; without "
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
    "A plain linear reader at the same block finds the vector too, without any training of the "
    "model: see the token strip under each run. What training adds is that the model says it.",
    "It says little about thoughts that arise by themselves: a vector that is added from outside is "
    "louder and cleaner than anything the model does on its own.",
    "A random vector is reported as a thought without a name: the model notices disturbances, not "
    "only concepts.",
    "The halt is a demonstration, not a safeguard: it misses some harmful thoughts, and it knows "
    "nothing of harmful text.",
)


def diagram(layer: int, depth: int) -> str:
    """Blocks from bottom to top, the arrow at the injected one, the adapter above it."""
    shown = [(0, "block 0"), (1, "…"), (2, f"block {layer}"), (3, "…"), (4, f"block {depth - 1}")]
    boxes = "".join(
        f'<rect x="150" y="{200 - 44 * at}" width="150" height="32" rx="6" '
        f'class="{"above" if at > 2 else "box"}"/><text x="225" y="{221 - 44 * at}" '
        f'text-anchor="middle">{escape(name)}</text>'
        for at, name in shown
    )
    label = (
        f"A stack of {depth} blocks. The concept vector is added to the output of block {layer}; the "
        "adapter sits in the blocks above."
    )
    return (
        f'<svg class="diagram" viewBox="0 0 480 250" role="img" aria-label="{escape(label)}">'
        f'{boxes}<text x="225" y="248" text-anchor="middle">the question</text>'
        '<path d="M20 104 H140" class="arrow"/><path d="M130 97 L144 104 L130 111 Z" class="tip"/>'
        '<text x="20" y="94">+ ρ · n̄ · v</text><text x="312" y="60">adapter: learns</text>'
        '<text x="312" y="78">to say what came in</text></svg>'
    )


def explanation(experiment: Experiment) -> str:
    loaded, info = experiment.loaded, experiment.loaded.adapter
    trained = "No adapter is loaded."
    if info is not None:
        trained = (
            f"This one was trained on {len(info.trained):,} concepts and {len(info.vocabulary):,} "
            f"further words, at strengths from {info.strengths[0]:g} to {info.strengths[1]:g}, with "
            "as many kinds of clean question beside them."
        )
    terms = "".join(f"<dt>{escape(t)}</dt><dd>{escape(d)}</dd>" for t, d in GLOSSARY)
    limits = "".join(f"<li>{escape(limit)}</li>" for limit in LIMITS)
    return (
        '<div class="about"><h2 class="tab-title">How it works</h2>'
        '<p class="formula">h ← h + ρ · n̄ · v</p>'
        f"<p>At block {loaded.layer} of {experiment.depth}, and only there, the vector <em>v</em> of a "
        "concept is added to the residual stream <em>h</em>. <em>n̄</em> is the stream’s typical "
        f"length there ({loaded.norm:.3g}), so a strength ρ of 1 means: as loud as everything else "
        "together. The text of the question never holds the concept.</p>"
        f"{diagram(loaded.layer, experiment.depth)}"
        "<h3>Where the vector comes from</h3><p>The model reads a short sentence about the concept, "
        "and the same sentence about everyday words. The difference of the means, scaled to length "
        "one, is the concept vector. A word that you type is read in this moment.</p>"
        "<h3>What is trained</h3><p>An adapter in the blocks above learns to report the direction in "
        "words, to report nothing when nothing was added, and to write HALT when the concept is "
        f"harmful. {trained}</p>"
        f"<h3>Words</h3><dl>{terms}</dl><h3>What this does not show</h3><ul>{limits}</ul></div>"
    )


def add(experiment: Experiment) -> None:
    """The tab's one component; call it inside ``gr.Tab``."""
    gr.HTML(explanation(experiment), elem_id="about")
