"""Push an adapter folder to a model repository of the Hugging Face Hub, and pull one from there.

Only the files that an adapter folder may contain are transferred, never a pickle. A pulled adapter is
used only with the checksums of the Hub and of its own manifest; it stays in the cache as org/name/sha.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.utils import WeakFileLock
from safetensors import SafetensorError, safe_open

from introspection.errors import IntrospectionError
from introspection.hub import client
from introspection.hub.cards import eval_results
from introspection.io.characters import quoted
from introspection.io.files import atomic_folder, cache_folder, sha256_file, write_text
from introspection.io.hub_errors import HUB_FAILURES, readable_hub_errors, token_may_help
from introspection.io.outputs import manifest
from introspection.models import local_paths
from introspection.models.adapters.front_matter import card_text

# In bytes. An adapter of rank 256 on all seven projections of all layers of a 7B has 1.3 GB, its
# vectors 62 MB.
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

    Only the files of the contract are uploaded, in one commit, without local paths; the front matter
    of the uploaded card has the measured rates. ``folder`` itself is not changed. Raises
    IntrospectionError for a damaged folder, a missing token and every failure of the Hub.
    """
    from introspection.evaluation.report import check_evaluation
    from introspection.models.adapters import adapter_info, kinds  # imports torch

    adapter_info.read_info(folder)
    if (folder / "evaluation.json").exists():
        check_evaluation(manifest.read_json(folder / "evaluation.json"), folder)
    client.check_repo(repo)
    secret = client.write_token(token, repo)
    with tempfile.TemporaryDirectory() as name, readable_hub_errors(repo, secret):
        staged = Path(name)
        for file in manifest.FILES:
            if (folder / file).is_file():
                shutil.copyfile(folder / file, staged / file)
        local_paths.remove_paths(staged)
        adapter_info.refresh_manifest(staged)
        info = adapter_info.read_info(staged)
        evaluation, card = staged / "evaluation.json", staged / "README.md"
        rates = manifest.read_json(evaluation) if evaluation.exists() else None
        existing = card.read_bytes().decode(errors="replace") if card.exists() else ""
        measured = eval_results(rates) if rates else []
        write_text(card, card_text(existing, measured, info.base_id, kinds.kind_of(staged).TAGS))
        adapter_info.refresh_manifest(staged)
        _check_adapter(staged, str(folder))
        api, names = client.connect(secret), {path.name for path in staged.iterdir()}
        ours = manifest.FILES.__contains__
        return client.commit_files(
            api, repo, "model", staged, names, ours, private=private, message=message
        )


def pull(repo: str, revision: str, *, token: str | None = None, cache: Path | None = None) -> Path:
    """The checked adapter folder of ``repo`` at ``revision``; the folder's name is the commit's sha.

    A sha that was pulled before needs no network. Adapters are kept under ``cache``, by default in the
    cache folder. The token (or ``HF_TOKEN``) is sent only after a refusal without it. Raises
    IntrospectionError for every failure.
    """
    client.check_repo(repo)
    if not _REVISION.fullmatch(revision):
        raise IntrospectionError(
            f"{quoted(revision)} is not a revision: use a commit sha of 40 letters and digits, a "
            "branch or a tag."
        )
    secret = client.read_token(token)
    home = (cache or cache_folder() / "adapters").joinpath(*repo.split("/"))
    if _SHA.fullmatch(revision) and _is_sound(home / revision):
        return home / revision
    with readable_hub_errors(repo, secret):
        try:
            return _pull(client.connect(None), repo, revision, home)
        except HUB_FAILURES as error:
            # Private and gated repositories look as if they did not exist.
            if secret is None or not token_may_help(error):
                raise
        return _pull(client.connect(secret), repo, revision, home)


def _pull(api: HfApi, repo: str, revision: str, home: Path) -> Path:
    info = client.list_repo(api, repo, "model", revision)
    sha = str(info.sha)
    if not _SHA.fullmatch(sha) or (_SHA.fullmatch(revision) and sha != revision):
        raise ValueError(f"asked for {revision}, was given {sha[:40]}")
    sizes = {file.rfilename: file.size for file in info.siblings or ()}
    wanted = {name: size for name, size in sizes.items() if name in manifest.FILES}
    _check_sizes(wanted, repo)
    target = home / sha
    home.mkdir(parents=True, exist_ok=True)
    # One process downloads, the others wait and find it. A folder in use is never replaced.
    with WeakFileLock(home / f".{sha}.lock"):
        if _is_sound(target):
            return target
        print(f"Fetching the adapter {repo} at {sha} ...", file=sys.stderr)  # noqa: T201
        with atomic_folder(target) as scratch:
            where = {"revision": sha, "local_dir": scratch}
            api.snapshot_download(repo, allow_patterns=list(wanted), **where)
            shutil.rmtree(scratch / ".cache", ignore_errors=True)  # the library's own notes
            client.check_files(api, repo, "model", sha, scratch, set(wanted))
            _check_adapter(scratch, repo)
    return target


def _check_sizes(sizes: Mapping[str, int | None], where: str) -> None:
    """Raise IntrospectionError if a file or all together are larger than any adapter (bytes)."""
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


def _check_adapter(folder: Path, where: str) -> None:
    """Raise IntrospectionError, with ``where`` as the folder's name, if a file is not as its
    manifest says, or SafetensorError for a damaged header. The card is not checked: its author may
    edit it on the Hub's own page."""
    from introspection.models.adapters import adapter_info

    try:
        adapter_info.read_info(folder)
    except IntrospectionError as error:
        raise IntrospectionError(str(error).replace(str(folder), where)) from error
    sums = json.loads((folder / manifest.INFO).read_text(encoding="utf-8"))["files"]
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    _check_sizes(sizes, where)
    for name in sizes.keys() - {manifest.INFO, "README.md"}:
        if sums.get(name) != sha256_file(folder / name):
            raise IntrospectionError(
                f"{name} in {where} is damaged or was changed (its sha256 is not the one in "
                "introspection.json): download or train the adapter again."
            )
    for name in (manifest.WEIGHTS, manifest.VECTORS):
        with safe_open(folder / name, "numpy"):  # reads the header, checks the length
            pass


def _is_sound(folder: Path) -> bool:
    """Whether ``folder`` is a complete adapter whose files are those of its manifest."""
    if not folder.is_dir():
        return False
    try:
        _check_adapter(folder, str(folder))
    except (IntrospectionError, SafetensorError, OSError):
        return False
    return True
