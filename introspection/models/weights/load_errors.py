"""What a failure to load a model means: one sentence that names the cause and what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from huggingface_hub import constants, errors
from safetensors import SafetensorError

from introspection.errors import IntrospectionError
from introspection.injection.trials.chat_templates import reason
from introspection.io.hub_errors import FROM_THE_HUB, hub_sentence
from introspection.models.weights.model_files import shown

# Failures that prove that the repository is there.
_SEEN = (errors.GatedRepoError, errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError)


@contextmanager
def part(what: str) -> Iterator[None]:
    """Note on whatever fails inside which part of a model was being read."""
    try:
        yield
    except Exception as error:
        error.add_note(what)
        raise


@contextmanager
def readable_load_errors(name: str, source: str) -> Iterator[None]:
    """``name`` is what the user called the model, ``source`` where it is read from."""
    try:
        yield
    except IntrospectionError:
        raise
    # Files of others fail in any way: TemplateError, AttributeError, KeyError, memory.
    except Exception as error:
        raise IntrospectionError(_sentence(error, name, source)) from error


def _sentence(error: Exception, name: str, source: str) -> str:
    local = os.path.isdir(source)
    what = next(iter(getattr(error, "__notes__", ())), "files")
    model = f"The model {shown(name)} could not be loaded"
    chain = list(_causes(error))
    from_hub = None if local else sentence_from_hub(error, name, source)
    if from_hub is not None:
        return from_hub
    failed = next((e for e in chain if isinstance(e, OSError) and e.strerror), None)
    if failed is not None:
        where = "" if local else " of HF_HOME, or set it to another folder"
        return f"{model} ({failed.strerror}): mend the permissions or free the disk{where}."
    if any(map(_memory, chain)):
        return (
            f"{model} because the memory does not suffice: free some, name a smaller model or use "
            "--quantise or --device split on GPUs."
        )
    if isinstance(error, ImportError):
        return (
            f"{model} because a package is missing to read its {what} ({reason(error)}): install it "
            "or name another model."
        )
    if "trust_remote_code" in str(error):
        return (
            f"{model} because its {what} needs program code from its own repository, which is never "
            "run here: name a model whose files do without."
        )
    if "ignore_mismatched_sizes" in str(error):
        return (
            f"{model} because its weights have other shapes than its config.json says: the two do "
            "not belong together; download the model again."
        )
    again = "download the model again" if local else "name another model or revision"
    if any(isinstance(e, SafetensorError) for e in chain):
        return f"{model} because a file of its weights is damaged or cut short: {again}."
    why = reason(error).split(": (")[0]
    if not isinstance(error, ValueError | RuntimeError | OSError):
        why = f"{type(error).__name__}: {why}"
    if what == "tokenizer":
        return (
            f"{model} because its tokenizer's files are missing, damaged or of a kind that is not "
            f"known here ({why}): put its tokenizer.json beside config.json."
        )
    return f"{model} because its {what} cannot be used ({why}): {again}."


def sentence_from_hub(error: BaseException, name: str, source: str) -> str | None:
    """The sentence for a failure of the Hub, or of the way to it; None for any other failure."""
    from_hub = [e for e in _causes(error) if isinstance(e, FROM_THE_HUB)]
    behind = [e for e in from_hub if not isinstance(e, errors.LocalEntryNotFoundError)]
    if not from_hub:
        return None
    # "Not in the cache" means that nobody was asked, or that nobody answered.
    offline = constants.is_offline_mode()
    unasked = errors.OfflineModeIsEnabled() if offline else errors.HTTPError("no answer")
    cause = behind[0] if behind else unasked
    sentence = hub_sentence(cause, source)
    seen = isinstance(cause, _SEEN)
    if seen or name.partition("@")[0] != source:
        return sentence
    sentence = f"the{sentence[3:]}" if sentence.startswith("The ") else sentence
    return f"No folder here is called {shown(name)}, and {sentence}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _memory(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in text for words in ("can't allocate memory", "not enough memory", "Cannot allocate")
    )
