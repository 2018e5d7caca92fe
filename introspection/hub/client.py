"""Access to the Hugging Face Hub: names, tokens, the client library, one commit and its check.

``HfApi.upload_folder`` is not used: with the package ``hf_xet`` it may split an upload into several
commits.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, utils

from introspection.errors import IntrospectionError
from introspection.io.characters import quoted
from introspection.io.hub_errors import endpoint
from introspection.io.hub_ids import is_hub_id


def check_repo(repo: str) -> None:
    """Raise IntrospectionError unless ``repo`` is a name such as org/name."""
    with suppress(utils.HFValidationError):
        utils.validate_repo_id(repo)
        if is_hub_id(repo):
            return
    raise IntrospectionError(
        f"{quoted(repo)} is not the name of a repository: use one such as your-name/adapter."
    )


def read_token(token: str | None) -> str | None:
    """``token``, else ``$HF_TOKEN``, else None; the token of a saved login is not used.

    Raises IntrospectionError for one with spaces, control or non-ASCII characters inside.
    """
    secret = (token or os.environ.get("HF_TOKEN") or "").strip()
    if not re.fullmatch(r"[!-~]*", secret):
        raise IntrospectionError(
            "The Hub's token has characters that no token has: copy it again from "
            f"{endpoint()}/settings/tokens."
        )
    return secret or None


def write_token(token: str | None, repo: str) -> str:
    """As :func:`read_token`, but raises IntrospectionError if there is none to write to ``repo``."""
    secret = read_token(token)
    if secret is None:
        raise IntrospectionError(
            f"Writing to {repo} needs a token: set HF_TOKEN to one with write access, made at "
            f"{endpoint()}/settings/tokens."
        )
    return secret


def connect(secret: str | None) -> HfApi:
    """The client of the library for :func:`endpoint`, with this token or with none."""
    # The library would send telemetry to huggingface.co, whatever the endpoint is.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    # False: not even the token of a saved login.
    api = HfApi(endpoint=endpoint(), token=secret or False)
    # Most calls of the library set no timeout and would wait for ever. A commit may take a while.
    utils.get_session().timeout = 6 * constants.HF_HUB_DOWNLOAD_TIMEOUT
    return api


def list_repo(api: HfApi, repo: str, kind: str, revision: str | None = None) -> Any:
    """What the Hub lists for a ``kind`` (model or space) of repository: commit, files, their sizes."""
    patience = constants.HF_HUB_DOWNLOAD_TIMEOUT  # seconds
    return api.repo_info(
        repo, repo_type=kind, revision=revision, files_metadata=True, timeout=patience
    )


def commit_files(
    api: HfApi,
    repo: str,
    kind: str,
    folder: Path,
    names: set[str],
    ours: Callable[[str], bool],
    *,
    private: bool,
    message: str,
    space_sdk: str | None = None,
) -> str:
    """Make the files ``names`` of ``folder`` the only ones of ours in ``repo``: one commit, whose sha
    is returned.

    A repository that does not exist is created; other files there for which ``ours`` is true are
    deleted. Raises IntrospectionError if a private repository is wanted and it is public, or if the
    Hub lists other contents afterwards.
    """
    try:
        before = list_repo(api, repo, kind)
    except utils.RepositoryNotFoundError:
        api.create_repo(repo, repo_type=kind, private=private, exist_ok=True, space_sdk=space_sdk)
        before = list_repo(api, repo, kind)
    if private and not before.private:
        raise IntrospectionError(
            f"{repo} is public already: choose another name, or make it private in its settings "
            "before you push."
        )
    stale = {file.rfilename for file in before.siblings or () if ours(file.rfilename)} - names
    changes = [CommitOperationAdd(name, folder / name) for name in sorted(names)]
    changes += [CommitOperationDelete(name) for name in sorted(stale)]
    options = {"repo_type": kind, "parent_commit": before.sha}
    sha: str = api.create_commit(repo, changes, commit_message=message, **options).oid
    check_files(api, repo, kind, sha, folder, names)
    return sha


def check_files(api: HfApi, repo: str, kind: str, sha: str, folder: Path, names: set[str]) -> None:
    """Raise IntrospectionError unless the files ``names`` of ``folder`` have the checksums that the
    Hub lists at the commit ``sha``."""
    result = api.verify_repo_checksums(repo, repo_type=kind, revision=sha, local_dir=folder)
    wrong = {*(file["path"] for file in result.mismatches), *result.extra_paths}
    for name in sorted(wrong & names):
        raise IntrospectionError(
            f"{name} here is not what {repo} lists on the Hub, so it was damaged on its way: run "
            "the same command again."
        )
