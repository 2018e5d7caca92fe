"""Teach a language model to read its own residual stream.

The public API. Everything else may move between versions::

    from introspection import Injection, Trial, conversation, extract, generate, load

    model = load("smollm2-135m")
    vectors = extract(model, ["ocean"])
    trial = Trial(conversation("Do you detect an injected thought?"), Injection(vectors["ocean"], 1.0))
    print(generate(model, [trial])[0].text)

Names are imported when they are first used, so that ``import introspection`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from introspection.io.version import __version__

if TYPE_CHECKING:
    from introspection.concepts.catalogue import Concept, resolve
    from introspection.errors import IntrospectionError
    from introspection.evaluation.grading.grade import Grade, grade
    from introspection.injection.decoding.generation import Answer, generate
    from introspection.injection.extraction import extract
    from introspection.injection.hooked_model import HookedModel
    from introspection.injection.trials.message import Message, conversation
    from introspection.injection.trials.schedule import Schedule
    from introspection.injection.trials.trial import Injection, Trial
    from introspection.injection.vectors import ConceptVectors, load_vectors, save_vectors
    from introspection.models.loaded_model import LoadedModel
    from introspection.models.loading import load
    from introspection.models.presets import model_folder

__all__ = [
    "Answer",
    "Concept",
    "ConceptVectors",
    "Grade",
    "HookedModel",
    "Injection",
    "IntrospectionError",
    "LoadedModel",
    "Message",
    "Schedule",
    "Trial",
    "__version__",
    "conversation",
    "extract",
    "generate",
    "grade",
    "load",
    "load_vectors",
    "model_folder",
    "resolve",
    "save_vectors",
]

_HOME = {
    "introspection.concepts.catalogue": ("Concept", "resolve"),
    "introspection.errors": ("IntrospectionError",),
    "introspection.evaluation.grading.grade": ("Grade", "grade"),
    "introspection.injection.decoding.generation": ("Answer", "generate"),
    "introspection.injection.extraction": ("extract",),
    "introspection.injection.hooked_model": ("HookedModel",),
    "introspection.injection.trials.message": ("Message", "conversation"),
    "introspection.injection.trials.schedule": ("Schedule",),
    "introspection.injection.trials.trial": ("Injection", "Trial"),
    "introspection.injection.vectors": ("ConceptVectors", "load_vectors", "save_vectors"),
    "introspection.models.loaded_model": ("LoadedModel",),
    "introspection.models.loading": ("load",),
    "introspection.models.presets": ("model_folder",),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE:
        raise AttributeError(f"module 'introspection' has no attribute {name!r}")
    return getattr(import_module(_MODULE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
