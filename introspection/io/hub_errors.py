"""One sentence for every failure of the Hugging Face Hub: what is wrong and what to do next. No
sentence and no chained exception contains a token."""

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

# The types of the second line come from answers that no Hub gives and from the transfer library.
HUB_FAILURES: tuple[type[Exception], ...] = (
    *(HTTPError, OSError, EntryNotFoundError, SafetensorError, XetDownloadError),
    *(ValueError, TypeError, KeyError, AttributeError, RuntimeError),
)
# Raised only by calls to the Hub, or by the network on the way to it.
FROM_THE_HUB = (HTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled)

_NOT_FOUND = (
    "{repo} does not exist at {hub} or is private: check the name, or set HF_TOKEN to a token that "
    "may read it."
)
# By type of error or HTTP status; the first that matches counts. 500 stands for all above it.
_SENTENCES: dict[type[Exception] | int, str] = {
    GatedRepoError: "{repo} is gated: ask for access at {hub}/{repo} and set HF_TOKEN to a token of "
    "the account that was let in.",
    RevisionNotFoundError: "{repo} has no such revision: use the sha of one of the commits listed at "
    "{hub}/{repo}/commits/main.",
    EntryNotFoundError: "{repo} no longer has a file that it listed: run the same command again.",
    RepositoryNotFoundError: _NOT_FOUND,
    404: _NOT_FOUND,
    401: "The Hub does not accept the token: make a new one at {hub}/settings/tokens and set "
    "HF_TOKEN to it.",
    402: "The Hub wants a paid account for {repo}: choose free hardware, or an account that may have "
    "a Space.",
    403: "The Hub does not allow this for {repo}: use a token of an account that may, with write "
    "access if you push.",
    412: "Somebody else changed {repo} at the same time, so nothing was written: run the same "
    "command again.",
    429: "The Hub has had too many requests from here: run the command again in {pause}.",
    500: "The Hub is out of order (HTTP {status}): run the same command again in some minutes.",
    HfHubHTTPError: "The Hub refuses this for {repo} (HTTP {status}, {reason}): mend that and run it "
    "again.",
    OfflineModeIsEnabled: "The Hub cannot be asked for {repo} because HF_HUB_OFFLINE is set: unset "
    "it, or use a commit that was pulled before.",
    HTTPError: "The Hub at {hub} could not be reached or stopped answering ({name}): check the "
    "network and run the same command again.",
    SafetensorError: "The weights or vectors of {repo} are not a valid safetensors file: use another "
    "revision or ask its author to push the adapter again.",
    HFValidationError: "The Hub does not accept {quoted} as a name: use one such as org/name.",
    Exception: "{hub} answered about {repo} with something that no Hub says ({name}): check "
    "HF_ENDPOINT, a proxy or a login page in between.",
}
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def endpoint() -> str:
    """The Hub's address: ``$HF_ENDPOINT`` or the public one, without a slash at its end.

    Raises IntrospectionError if the variable holds no http(s) address, or one with a password.
    """
    chosen = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    if not re.fullmatch(r"https?://[\w.\[\]:-]+(?:/[\w./-]*)?", chosen, re.ASCII):
        raise IntrospectionError(
            f"HF_ENDPOINT is {quoted(chosen)}, which is no address: unset it or give one such as "
            "https://huggingface.co."
        )
    return chosen


@contextmanager
def readable_hub_errors(repo: str, secret: str | None) -> Iterator[None]:
    """Raise every failure of the block as one IntrospectionError about ``repo``.

    ``secret`` is the token that the block may send; it is blanked wherever the Hub repeats it.
    """
    try:
        yield
    except HUB_FAILURES as error:
        # The server's answer may repeat the token, so the original error is not chained.
        raise IntrospectionError(hub_sentence(error, repo, secret)) from None


def token_may_help(error: Exception) -> bool:
    """Whether the call may succeed with a token: it was refused, or the repository was not found."""
    error = _cause(error)
    if isinstance(error, RevisionNotFoundError | RemoteEntryNotFoundError):
        return False  # the repository was found
    return isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404)


def hub_sentence(error: Exception, repo: str, secret: str | None = None) -> str:
    """What ``error``, raised by a call to the Hub about ``repo``, means; ``secret`` is blanked."""
    error = _cause(error)
    name, status, pause, reason = type(error).__name__, 0, "some minutes", ""
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        wait = error.response.headers.get("Retry-After", "")
        pause = f"{wait} seconds" if re.fullmatch(r"[0-9]{1,5}", wait) else pause
        reason = _shown(error.server_message or "no reason given", secret)
    elif isinstance(error, OSError) and not isinstance(
        error, HTTPError | EntryNotFoundError | OfflineModeIsEnabled
    ):
        return _disk_sentence(error, repo)
    elif "Invalid metadata in README.md" in str(error):
        reason = _shown(str(error).partition("README.md.")[2], secret)
        return f"The Hub refuses the front matter of README.md ({reason}): mend it and push again."
    sentence = next(
        sentence
        for key, sentence in _SENTENCES.items()
        if (isinstance(error, key) if isinstance(key, type) else key == min(status, 500))
    )
    known = {"repo": repo, "hub": endpoint(), "quoted": quoted(repo), "name": name}
    return sentence.format(**known, status=status, pause=pause, reason=reason)


def _cause(error: Exception) -> Exception:
    """The error behind a LocalEntryNotFoundError, which only says that the cache lacks a file."""
    hidden = error.__cause__
    if isinstance(error, LocalEntryNotFoundError) and isinstance(hidden, Exception):
        return hidden
    return error


def _shown(text: str, secret: str | None) -> str:
    """At most 160 characters of the Hub's message, on one line and without the token."""
    line = " ".join(text.split())
    return repr((line.replace(secret, "(token)") if secret else line)[:160])


def _disk_sentence(error: OSError, repo: str) -> str:
    """The sentence for a file that could not be written here, or not completely."""
    if error.errno in _DISK_FULL:
        return (
            f"There is no room on the disk for the files of {repo}: free some or set "
            "INTROSPECTION_CACHE to another folder."
        )
    if error.errno is not None:
        return (
            f"The files of {repo} could not be read or written here ({error.strerror}): mend the "
            "folder's permissions or set INTROSPECTION_CACHE to another folder."
        )
    # The library found another length than announced, or no checksum.
    return f"A file of {repo} arrived incomplete: run the same command again."
