"""What moves between an adapter folder and the Hugging Face Hub: push and pull.

Knows: which files may go and come, how each is checked, when a token is sent. Does not know: how an
adapter is made, what its card says (``cards``), what a failure of the Hub means (``hub_errors``).

A pulled file is used only if its length and checksum are those that the Hub lists for the commit
and those of the adapter's own manifest. What was checked once is kept by commit, and found again
without a network. Pushes are one commit on top of a known one, and are compared afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.utils import (
    HFValidationError,
    RepositoryNotFoundError,
    WeakFileLock,
    get_session,
    validate_repo_id,
)
from safetensors import SafetensorError, safe_open

from introspection.errors import IntrospectionError
from introspection.hub.cards import results
from introspection.io.files import atomic_folder, cache_folder, sha256_file, write_text
from introspection.io.hub_errors import HUB_FAILURES, endpoint, may_need_token, readable_hub_errors
from introspection.io.input_checks import quoted
from introspection.io.outputs import manifest
from introspection.models import local_paths
from introspection.models.adapters.front_matter import HUB_ID, card_text

__all__ = ["LARGEST_FILE", "LARGEST_TOTAL", "pull", "push"]

# An adapter of rank 256 on all seven projections of all layers of a 7B has 1.3 GB, its vectors 62 MB.
LARGEST_FILE, LARGEST_TOTAL = 2 << 30, 3 << 30
_SHA = re.compile(r"[0-9a-f]{40}")
_REVISION = re.compile(r"\w[\w./+-]{0,199}", re.ASCII)


def push(
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    token: str | None = None,
    message: str = "Introspection adapter",
) -> str:
    """Upload the adapter in ``folder`` to the model repository ``repo`` and return the commit's sha.

    Only the files of the contract go, in one commit; the card that goes has the measured rates in
    its front matter. Raises IntrospectionError for everything that stands in the way.
    """
    from introspection.evaluation.report import check_evaluation
    from introspection.models.adapters import adapter_info, kinds  # imports torch

    adapter_info.read_info(folder)
    if (folder / "evaluation.json").exists():
        check_evaluation(manifest.read_json(folder / "evaluation.json"), folder)
    check_repo(repo)
    secret = token_to_write(token, repo)
    with tempfile.TemporaryDirectory() as name, readable_hub_errors(repo, secret):
        staged = Path(name)
        for file in manifest.FILES:
            if (folder / file).is_file():
                shutil.copyfile(folder / file, staged / file)
        local_paths.without_paths(staged)
        adapter_info.refresh_manifest(staged)
        info = adapter_info.read_info(staged)
        evaluation, card = staged / "evaluation.json", staged / "README.md"
        rates = manifest.read_json(evaluation) if evaluation.exists() else None
        existing = card.read_bytes().decode(errors="replace") if card.exists() else ""
        measured = results(rates) if rates else []
        tags = kinds.kind_of(staged).TAGS
        write_text(card, card_text(existing, measured, info.base_id, tags))
        adapter_info.refresh_manifest(staged)
        _check_adapter(staged)
        files = {path.name: path for path in staged.iterdir()}
        _check_sizes({name: path.stat().st_size for name, path in files.items()}, str(folder))
        return commit_files(
            connect(secret), repo, "model", files, manifest.FILES.__contains__, private, message
        )


def pull(repo: str, revision: str, *, token: str | None = None, cache: Path | None = None) -> Path:
    """The adapter folder of ``repo`` at ``revision``, checked; its name is the commit's sha.

    A sha that was pulled before needs no network. A branch or tag is looked up first. ``cache`` is
    where adapters are kept. The token (or ``HF_TOKEN``) is sent only after a refusal without it.
    """
    check_repo(repo)
    if not _REVISION.fullmatch(revision):
        raise IntrospectionError(
            f"{quoted(revision)} is not a revision: use a commit sha of 40 letters and digits, a "
            "branch or a tag."
        )
    secret = _secret(token)
    home = (cache or cache_folder() / "adapters").joinpath(*repo.split("/"))
    if _SHA.fullmatch(revision) and _is_sound(home / revision):
        return home / revision
    with readable_hub_errors(repo, secret):
        try:
            return _pull(connect(None), repo, revision, home)
        except HUB_FAILURES as error:
            # Private and gated repositories look as if they did not exist.
            if secret is None or not may_need_token(error):
                raise
        return _pull(connect(secret), repo, revision, home)


def check_repo(repo: str) -> None:
    try:
        validate_repo_id(repo)
        valid = HUB_ID.fullmatch(repo) is not None
    except HFValidationError:
        valid = False
    if not valid:
        raise IntrospectionError(
            f"{quoted(repo)} is not the name of a repository: use one such as your-name/adapter."
        )


def _secret(token: str | None) -> str | None:
    """The token that was given or is in ``HF_TOKEN``; a saved login is not used."""
    secret = (token or os.environ.get("HF_TOKEN") or "").strip()
    if not re.fullmatch(r"[!-~]*", secret):
        raise IntrospectionError(
            "The Hub's token has characters that no token has: copy it again from "
            f"{endpoint()}/settings/tokens."
        )
    return secret or None


def token_to_write(token: str | None, repo: str) -> str:
    secret = _secret(token)
    if secret is None:
        raise IntrospectionError(
            f"Writing to {repo} needs a token: set HF_TOKEN to one with write access, made at "
            f"{endpoint()}/settings/tokens."
        )
    return secret


def connect(secret: str | None) -> Any:
    """The client library for the endpoint, with this token or none."""
    # The library would ask huggingface.co, whatever the endpoint is, which agent may be running it.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    # False: not even the token of a saved login.
    api = HfApi(endpoint=endpoint(), token=secret or False)
    # Most calls of the library set no timeout and would wait for ever. A commit may take a while.
    get_session().timeout = 6 * constants.HF_HUB_DOWNLOAD_TIMEOUT
    return api


def _pull(api: Any, repo: str, revision: str, home: Path) -> Path:

    info = _listing(api, repo, "model", revision)
    sha = str(info.sha)
    if not _SHA.fullmatch(sha) or (_SHA.fullmatch(revision) and sha != revision):
        raise ValueError(f"asked for {revision}, was given {sha[:40]}")
    wanted = [file for file in info.siblings or () if file.rfilename in manifest.FILES]
    _check_sizes({file.rfilename: file.size for file in wanted}, repo)
    target = home / sha
    home.mkdir(parents=True, exist_ok=True)
    # One process downloads, the others wait and find it. A folder in use is never replaced.
    with WeakFileLock(home / f".{sha}.lock"):
        if _is_sound(target):
            return target
        print(f"Fetching the adapter {repo} at {sha} ...", file=sys.stderr)  # noqa: T201
        with atomic_folder(target) as scratch:
            for file in wanted:
                api.hf_hub_download(repo, file.rfilename, revision=sha, local_dir=scratch)
            shutil.rmtree(scratch / ".cache", ignore_errors=True)  # the library's own notes
            _check_same({file.rfilename: scratch / file.rfilename for file in wanted}, wanted, repo)
            try:
                _check_adapter(scratch)
            except IntrospectionError as error:  # the folder it names is about to vanish
                raise IntrospectionError(str(error).replace(str(scratch), repo)) from error
    return target


def commit_files(
    api: Any,
    repo: str,
    kind: str,
    files: Mapping[str, Path],
    owned: Callable[[str], bool],
    private: bool,
    message: str,
    **options: Any,
) -> str:
    """One commit that makes ``files`` the only ones of those that we ``own`` there; then compare."""
    try:
        before = _listing(api, repo, kind, None)
    except RepositoryNotFoundError:
        api.create_repo(repo, repo_type=kind, private=private, exist_ok=True, **options)
        before = _listing(api, repo, kind, None)
    if private and not before.private:
        raise IntrospectionError(
            f"{repo} is public already: choose another name, or make it private in its settings "
            "before you push."
        )
    there = [file.rfilename for file in before.siblings or ()]
    operations: list[Any] = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()
    ]
    # A rate or a module of an older version must not stay beside the new ones.
    operations += [
        CommitOperationDelete(path_in_repo=name)
        for name in there
        if owned(name) and name not in files
    ]
    sha = api.create_commit(
        repo,
        operations,
        commit_message=message,
        repo_type=kind,
        parent_commit=before.sha,
    ).oid
    _check_same(files, _listing(api, repo, kind, sha).siblings or (), repo)
    return str(sha)


def _listing(api: Any, repo: str, kind: str, revision: str | None) -> Any:
    """What the Hub says of a repository: its commit, its files with length and checksum."""
    patience = constants.HF_HUB_DOWNLOAD_TIMEOUT
    return api.repo_info(
        repo, repo_type=kind, revision=revision, files_metadata=True, timeout=patience
    )


def _check_same(files: Mapping[str, Path], listed: Iterable[Any], repo: str) -> None:
    """Refuse local files that are not, byte for byte, what the Hub lists under their names."""
    there = {file.rfilename: file for file in listed}
    for name, path in files.items():
        if name not in there or not _matches_listing(path, there[name]):
            raise IntrospectionError(
                f"{name} here is not what {repo} lists on the Hub, so it was damaged on its way: "
                "run the same command again."
            )


def _matches_listing(path: Path, listed: Any) -> bool:
    if path.stat().st_size != listed.size:
        return False
    if listed.lfs is not None:
        return sha256_file(path) == listed.lfs.sha256
    data = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)  # git's name of it
    return blob.hexdigest() == listed.blob_id


def _check_sizes(sizes: Mapping[str, int | None], where: str) -> None:
    for name, size in sizes.items():
        if size is None or size > LARGEST_FILE:
            raise IntrospectionError(
                f"{name} of {where} is larger than {LARGEST_FILE >> 30} GiB, which no adapter of "
                "this program is: use another repository or a lower rank."
            )
    if sum(size or 0 for size in sizes.values()) > LARGEST_TOTAL:
        raise IntrospectionError(
            f"The files of {where} are larger than {LARGEST_TOTAL >> 30} GiB together, which no "
            "adapter of this program is: use another repository or a lower rank."
        )


def _check_adapter(folder: Path) -> None:
    """Every file present against the manifest; ``read_info`` checks those that are always there.

    Not the card: it is for people, and its author may mend it on the Hub's own page.
    """
    from introspection.models.adapters import adapter_info

    adapter_info.read_info(folder)
    sums = json.loads((folder / manifest.INFO).read_text(encoding="utf-8"))["files"]
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    _check_sizes(sizes, str(folder))
    for name in sizes.keys() - {manifest.INFO, "README.md"}:
        if sums.get(name) != sha256_file(folder / name):
            raise IntrospectionError(
                f"{name} in {folder} is damaged or was changed (its sha256 is not the one in "
                "introspection.json): download or train the adapter again."
            )
    for name in (manifest.WEIGHTS, manifest.VECTORS):
        with safe_open(folder / name, "numpy"):  # reads the header, checks the length
            pass


def _is_sound(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    try:
        _check_adapter(folder)
    except (IntrospectionError, SafetensorError, OSError):
        return False
    return True
