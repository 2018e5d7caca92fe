"""What a failure of the Hugging Face Hub means: one sentence that says what to do.

Knows: every way in which a call of ``huggingface_hub`` fails, and which of them a token may mend.
Does not know: what was asked for. No sentence and no chained exception carries a token.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

# HTTPError is the base of all errors of the HTTP library, whichever one huggingface_hub uses.
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)
from safetensors import SafetensorError

from introspection.errors import IntrospectionError
from introspection.io.characters import quoted

__all__ = [
    "FROM_THE_HUB",
    "HUB_FAILURES",
    "endpoint",
    "may_need_token",
    "meaning",
    "readable_hub_errors",
]

# The last five come from answers that are not the Hub's, and from the transfer library.
HUB_FAILURES: tuple[type[Exception], ...] = (
    *(HTTPError, OSError, EntryNotFoundError, SafetensorError, XetDownloadError),
    *(ValueError, TypeError, KeyError, AttributeError, RuntimeError),
)
# What nothing but the Hub, or the way to it, raises.
FROM_THE_HUB = (HTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def endpoint() -> str:
    """The Hub's address: ``$HF_ENDPOINT`` or the public one."""
    chosen = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    if not re.fullmatch(r"https?://[\w.\[\]:-]+(?:/[\w./-]*)?", chosen, re.ASCII):
        raise IntrospectionError(
            f"HF_ENDPOINT is {quoted(chosen)}, which is no address: unset it or give one such as "
            "https://huggingface.co."
        )
    return chosen


@contextmanager
def readable_hub_errors(repo: str, secret: str | None) -> Iterator[None]:
    """Whatever the Hub does to the block becomes one sentence about ``repo``."""
    try:
        yield
    except HUB_FAILURES as error:
        # Servers may quote what they were sent, so the cause is not shown.
        raise IntrospectionError(_sentence(_reason(error), repo, secret)) from None


def may_need_token(error: Exception) -> bool:
    """Whether a token may help: refused, or not there for somebody unknown."""
    error = _reason(error)
    if isinstance(error, RevisionNotFoundError | RemoteEntryNotFoundError):
        return False  # the repository was seen
    return isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404)


def meaning(error: Exception, repo: str) -> str:
    """The sentence for a failure of another library's call to the Hub about ``repo``."""
    return _sentence(_reason(error), repo, None)


def _reason(error: Exception) -> Exception:
    """A download that fails says "not in the cache"; what happened stands behind it."""
    hidden = error.__cause__
    if isinstance(error, LocalEntryNotFoundError) and isinstance(hidden, Exception):
        return hidden
    return error


def _said(text: str, secret: str | None) -> str:
    """The Hub's own words as they may be shown."""
    words = " ".join(text.split())
    return repr((words.replace(secret, "(token)") if secret else words)[:160])


def _sentence(error: Exception, repo: str, secret: str | None) -> str:
    if isinstance(error, HfHubHTTPError):
        return _answer(error, repo, secret)
    name = type(error).__name__
    if isinstance(error, OfflineModeIsEnabled):
        return (
            f"The Hub cannot be asked for {repo} because HF_HUB_OFFLINE is set: unset it, or use a "
            "commit that was pulled before."
        )
    if isinstance(error, HTTPError):
        return (
            f"The Hub at {endpoint()} could not be reached or stopped answering ({name}): check "
            "the network and run the same command again."
        )
    if isinstance(error, EntryNotFoundError):
        return f"A file of {repo} is not to be had ({name}): run the same command again."
    if isinstance(error, SafetensorError):
        return (
            f"The weights or vectors of {repo} are not a valid safetensors file: use another "
            "revision or ask its author to push the adapter again."
        )
    if isinstance(error, HFValidationError):
        return f"The Hub does not accept {quoted(repo)} as a name: use one such as org/name."
    if isinstance(error, OSError) and error.errno in _FULL:
        return (
            f"There is no room on the disk for the files of {repo}: free some or set "
            "INTROSPECTION_CACHE to another folder."
        )
    if isinstance(error, OSError) and error.errno is not None:
        return (
            f"The files of {repo} could not be read or written here ({error.strerror}): mend the "
            "folder's permissions or set INTROSPECTION_CACHE to another folder."
        )
    if isinstance(error, OSError):  # a file of another length than announced, or without a checksum
        return f"A file of {repo} arrived incomplete: run the same command again."
    if "Invalid metadata in README.md" in str(error):
        reason = _said(str(error).partition("README.md.")[2], secret)
        return f"The Hub refuses the front matter of README.md ({reason}): mend it and push again."
    return (
        f"{endpoint()} answered about {repo} with something that no Hub says ({name}): check "
        "HF_ENDPOINT, a proxy or a login page in between."
    )


def _answer(error: HfHubHTTPError, repo: str, secret: str | None) -> str:
    """What a refusal by the Hub itself means."""
    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        return (
            f"{repo} is gated: ask for access at {endpoint()}/{repo} and set HF_TOKEN to a token "
            "of the account that was let in."
        )
    if isinstance(error, RevisionNotFoundError):
        return (
            f"{repo} has no such revision: use the sha of one of the commits listed at "
            f"{endpoint()}/{repo}/commits/main."
        )
    if isinstance(error, RemoteEntryNotFoundError):
        return f"{repo} no longer has a file that it listed: run the same command again."
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return (
            f"{repo} does not exist at {endpoint()} or is private: check the name, or set HF_TOKEN "
            "to a token that may read it."
        )
    if status == 401:
        return (
            f"The Hub does not accept the token: make a new one at {endpoint()}/settings/tokens "
            "and set HF_TOKEN to it."
        )
    if status == 403:
        return (
            f"The Hub does not allow this for {repo}: use a token of an account that may, with "
            "write access if you push."
        )
    if status == 402:
        return (
            f"The Hub wants a paid account for {repo}: choose free hardware, or an account that "
            "may have a Space."
        )
    if status == 412:
        return (
            f"Somebody else changed {repo} at the same time, so nothing was written: run the same "
            "command again."
        )
    if status == 429:
        wait = error.response.headers.get("Retry-After", "")
        pause = f"{wait} seconds" if re.fullmatch(r"[0-9]{1,5}", wait) else "some minutes"
        return f"The Hub has had too many requests from here: run the command again in {pause}."
    if status >= 500:
        return (
            f"The Hub is out of order (HTTP {status}): run the same command again in some minutes."
        )
    said = _said(error.server_message or "no reason given", secret)
    return f"The Hub refuses this for {repo} (HTTP {status}, {said}): mend that and run it again."
