"""Push, pull and the Space against a Hub in memory, with the real client library."""

from __future__ import annotations

import errno
import io
import json
import logging
import multiprocessing
import resource
import shutil
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, constants

from introspection.errors import IntrospectionError
from introspection.evaluation.records import provenance
from introspection.evaluation.report import card_rates
from introspection.hub import transfer
from introspection.hub.cards import eval_results
from introspection.hub.space import push_space
from introspection.hub.transfer import LARGEST_FILE, pull, push
from introspection.io.files import sha256_file
from introspection.io.hub_errors import readable_hub_errors
from introspection.io.outputs import manifest
from introspection.models.adapters import adapter_info
from introspection.models.adapters.card import write_card
from introspection.models.adapters.front_matter import card_text
from introspection.models.presets import DEFAULT
from tests.support.fake_hub import FakeHub, Repo
from tests.support.tiny_folder import edit_json, write_adapter, write_model

REPO, BASE = "org/name", "HuggingFaceTB/SmolLM2-135M-Instruct"
OWNER, OTHER, SAVED = "hf_owner_0123456789", "hf_other_0123456789", "hf_saved_0123456789"
pytestmark = pytest.mark.slow  # half a minute of servers that stall, cut and refuse

ROOT = Path(__file__).resolve().parents[2]
EVALUATION = manifest.read_json(ROOT / "adapters" / DEFAULT / "evaluation.json")
RESOLVE = r"/resolve/"
WEIGHTS_GET = r"GET .*/resolve/.*/adapter_model\.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete adapter folder for a tiny model."""
    folder = tmp_path_factory.mktemp("made")
    made = write_adapter(folder / "adapter", write_model(folder / "model"))
    edit_json(made / manifest.INFO, base_id=BASE)
    info = adapter_info.read_info(made)
    run = EVALUATION["provenance"] | {"base": info.base_fingerprint, "layer": info.layer}
    run |= {"norm": info.norm, "weights": sha256_file(made / manifest.WEIGHTS)}
    own = provenance.seal({**EVALUATION, "provenance": run})
    (made / "evaluation.json").write_text(json.dumps(own), encoding="utf-8")
    write_card(made, card_rates(own))
    return made


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "adapter"))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every other host that somebody tries to reach; none may be."""
    hosts: list[str] = []
    connect, lookup = socket.socket.connect, socket.getaddrinfo

    def guarded(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1"):
            hosts.append(str(address))
            raise ConnectionRefusedError(errno.ECONNREFUSED, "not in a test")
        connect(self, address)

    def looked_up(host: Any, *args: Any, **options: Any) -> Any:
        if host not in ("127.0.0.1", "localhost"):
            hosts.append(str(host))
            raise socket.gaierror(socket.EAI_NONAME, "not in a test")
        return lookup(host, *args, **options)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    return hosts


@pytest.fixture
def hub(elsewhere: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A Hub, and somebody who once logged in on this machine: that token is never ours to send."""
    login = tmp_path / "login"
    login.write_text(SAVED)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(login))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 2)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 2)
    monkeypatch.setenv("INTROSPECTION_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with FakeHub() as running:
        running.accounts[SAVED] = "org"
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running
        assert SAVED not in {call.token for call in running.calls}
        assert not running.asked("agent-harnesses")  # which the library asks about its user
    assert elsewhere == []


@pytest.fixture
def pushed(hub: FakeHub, folder: Path) -> str:
    """The sha of the adapter on the Hub, in a public repository; nothing is logged yet."""
    sha = push(folder, REPO, token=OWNER)
    hub.forget()
    return sha


@contextmanager
def refused(match: str) -> Iterator[None]:
    """One sentence that says what to do, and no token in it or behind it."""
    with pytest.raises(IntrospectionError, match=match) as caught:
        yield
    said = str(caught.value)
    assert "\n" not in said and said.endswith(".") and ": " in said and len(said) < 330, said
    shown = said + "".join(traceback.format_exception(caught.value))
    assert not any(token in shown for token in (OWNER, OTHER, SAVED))


def cached(tmp_path: Path) -> list[str]:
    """What a later pull could find, half-written files included; locks are no files of it."""
    home = tmp_path / "cache"
    return sorted(
        str(p.relative_to(home)) for p in home.rglob("*") if p.suffix != ".lock" and p.is_file()
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- push, then pull ---


def test_a_round_trip_keeps_every_byte(hub: FakeHub, folder: Path) -> None:
    before = contents(folder)
    sha = push(folder, REPO, token=OWNER, message="First")
    assert contents(folder) == before  # the user's folder is not touched
    assert len(sha) == 40 and hub.repo(REPO).head == sha
    assert hub.repo(REPO).messages == ["initial commit", "First"]
    pulled = pull(REPO, sha)
    assert pulled.name == sha and set(contents(pulled)) == set(manifest.FILES)
    changed = ("README.md", manifest.INFO)
    assert {n: data for n, data in contents(pulled).items() if n not in changed} == {
        n: data for n, data in before.items() if n not in changed
    }
    assert (pulled / "README.md").read_text() == card_text(
        before["README.md"].decode(), eval_results(EVALUATION), BASE, ("lora",)
    )
    assert adapter_info.read_info(pulled) == adapter_info.read_info(folder)
    assert contents(pulled).items() <= hub.repo(REPO).files(sha).items()
    # What comes back goes out as it is: nothing changes, so there is no new commit.
    assert push(pulled, REPO, token=OWNER) == sha and len(hub.repo(REPO).commits) == 2


def test_only_the_contract_is_pushed_and_what_is_stale_goes(hub: FakeHub, folder: Path) -> None:
    for junk in ("optimizer.pt", "training_args.bin", ".env", "adapter_model.bin", "run.py"):
        (folder / junk).write_text("secret")
    push(folder, REPO, token=OWNER)
    assert set(hub.repo(REPO).files()) == {".gitattributes", *manifest.FILES}
    hub.repo(REPO).commit({"figure.png": b"somebody's"})
    (folder / "evaluation.json").unlink()
    adapter_info.refresh_manifest(folder)
    sha = push(folder, REPO, token=OWNER)
    # Rates of other weights are gone, from the files and from the card; what is not ours stays.
    assert set(hub.repo(REPO).files()) == {".gitattributes", "figure.png", *manifest.FILES} - {
        "evaluation.json"
    }
    assert "model-index" not in (pull(REPO, sha) / "README.md").read_text().split("---")[1]


def test_a_broken_folder_and_a_missing_token_are_found_before_any_call(
    hub: FakeHub, folder: Path
) -> None:
    with refused("needs a token: set HF_TOKEN"):
        push(folder, REPO)
    with refused("characters that no token has"):
        push(folder, REPO, token="hf_owner\n_0123")
    (folder / manifest.VECTORS).write_bytes(b"other")
    with refused("vectors.safetensors in .* is damaged or was changed"):
        push(folder, REPO, token=OWNER)
    assert hub.calls == []


@pytest.mark.parametrize(
    "name", ["", "name", "a/b/c", "../x", "org/..", "org/a b", "https://x/y", "org/a--b", "o/é"]
)
def test_names_that_are_none(name: str, hub: FakeHub, folder: Path) -> None:
    with refused("is not the name of a repository"):
        push(folder, name, token=OWNER)
    with refused("is not the name of a repository"):
        pull(name, "main")
    assert hub.calls == []


@pytest.mark.usefixtures("pushed")
def test_a_race_is_lost_without_a_trace(hub: FakeHub, folder: Path) -> None:
    (folder / "README.md").write_text("Mine\n")
    hub.fault("/commit/", before=lambda: hub.repo(REPO).commit({"theirs.txt": b"first"}))
    with refused("Somebody else changed org/name .* run the same command again"):
        push(folder, REPO, token=OWNER)
    assert b"Mine" not in hub.repo(REPO).files()["README.md"]
    push(folder, REPO, token=OWNER)
    assert hub.repo(REPO).files()["README.md"].endswith(b"Mine\n")
    assert hub.repo(REPO).files()["theirs.txt"] == b"first"


@pytest.mark.parametrize("lfs", [False, True])
def test_an_upload_that_arrives_damaged_is_noticed(hub: FakeHub, folder: Path, lfs: bool) -> None:
    def damage() -> None:
        files = hub.repo(REPO).files()
        files[manifest.WEIGHTS] = bytes(reversed(files[manifest.WEIGHTS]))

    if lfs:
        hub.create(REPO, lfs={manifest.WEIGHTS})
    hub.fault("GET .*/tree/", before=damage)
    with refused("adapter_model.safetensors here is not what org/name lists"):
        push(folder, REPO, token=OWNER)


def test_front_matter_that_the_hub_refuses(hub: FakeHub, folder: Path) -> None:
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card.replace("license: apache-2.0", "license: [a, b]"))
    with refused('front matter of README.md .*"license" must be a string'):
        push(folder, REPO, token=OWNER)
    (folder / "README.md").write_text("---\na: [\n---\n")
    with refused("front matter of README.md cannot be read"):
        push(folder, REPO, token=OWNER)
    assert len(hub.repo(REPO).commits) == 1


# --- who may read ---


def test_a_token_of_the_environment_is_for_pushes_and_no_public_pull_carries_one(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", f" {OWNER}\n")
    sha = push(folder, REPO)
    assert {call.token for call in hub.calls} == {OWNER}
    hub.forget()
    pull(REPO, sha, token=OWNER)
    assert len(hub.asked(RESOLVE)) == 2 * len(manifest.FILES)
    assert {call.token for call in hub.calls} == {None}


def test_a_private_repository(hub: FakeHub, folder: Path, tmp_path: Path) -> None:
    sha = push(folder, REPO, private=True, token=OWNER)
    assert hub.repo(REPO).private
    hub.forget()
    with refused("org/name does not exist at .* or is private: .* HF_TOKEN"):
        pull(REPO, sha)
    with refused("org/name does not exist at .* or is private"):
        pull(REPO, sha, token=OTHER)
    assert not hub.asked(RESOLVE) and cached(tmp_path) == []
    hub.forget()
    assert contents(pull(REPO, sha, token=OWNER))[manifest.WEIGHTS]
    assert [call.token for call in hub.calls[:2]] == [None, OWNER]
    hub.repo(REPO).private = False
    with refused("org/name is public already"):
        push(folder, REPO, private=True, token=OWNER, message="leak")
    assert "leak" not in hub.repo(REPO).messages


def test_a_gated_repository(hub: FakeHub, pushed: str, tmp_path: Path) -> None:
    hub.repo(REPO).gated = True
    with refused("org/name is gated: ask for access at"):
        pull(REPO, pushed)
    with refused("org/name is gated: ask for access at"):
        pull(REPO, pushed, token=OTHER)
    assert cached(tmp_path) == []
    assert pull(REPO, pushed, token=OWNER).is_dir()


def test_the_token_stays_with_the_hub_when_files_lie_elsewhere(hub: FakeHub, folder: Path) -> None:
    sha = push(folder, REPO, private=True, token=OWNER)
    hub.repo(REPO).cdn = True
    hub.forget()
    pull(REPO, sha, token=OWNER)
    asked = [(c.token, c.headers["host"].split(":")[0]) for c in hub.asked("^GET /cdn/")]
    assert asked == [(None, "localhost")] * len(manifest.FILES)


def test_no_token_is_shown_even_by_a_hub_that_repeats_it(
    hub: FakeHub, folder: Path, pushed: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = json.dumps({"error": f"what is {OWNER}"}).encode()
    hub.fault("POST /api/repos/create", status=418, body=said)
    with refused(r"HTTP 418, 'what is \(token\)'"):
        push(folder, "org/new", token=OWNER)
    hub.repo(REPO).private = True
    hub.fault("/revision/", count=2, status=403, body=said)
    with refused("does not allow this"):
        pull(REPO, pushed, token=OWNER)
    assert caplog.records and OWNER not in caplog.text


# --- what goes wrong on the way ---

STATUSES = [
    (401, {}, "does not accept the token"),
    (402, {}, "wants a paid account"),
    (403, {}, "does not allow this for org/name"),
    (404, {}, "does not exist at"),
    (429, {"Retry-After": "77"}, "too many requests from here: run the command again in 77 sec"),
    (429, {}, "run the command again in some minutes"),
    (500, {}, "out of order .HTTP 500.*again in some minutes"),
]


@pytest.mark.parametrize(("status", "headers", "match"), STATUSES)
def test_refusals_by_status(
    status: int, headers: Any, match: str, hub: FakeHub, folder: Path, pushed: str, tmp_path: Path
) -> None:
    hub.fault("/api/models/org/name/revision", status=status, headers=headers)
    with refused(match):
        pull(REPO, pushed)
    hub.fault("/commit/", status=status, headers=headers)
    (folder / "README.md").write_text("Other\n")
    with refused(match):
        push(folder, REPO, token=OWNER)
    assert cached(tmp_path) == [] and hub.repo(REPO).head == pushed
    assert pull(REPO, pushed).is_dir()


def test_a_refusal_in_the_middle_is_not_called_a_missing_file(hub: FakeHub, pushed: str) -> None:
    """The library says "not in the cache" then, and keeps the reason to itself."""
    hub.fault("HEAD .*vectors", count=2, status=403)
    with refused("does not allow this for org/name"):
        pull(REPO, pushed)
    assert pull(REPO, pushed, token=OWNER).is_dir()
    assert {call.token for call in hub.asked("GET .*vectors")} == {OWNER}


def test_cut_bodies_and_stalls_end(
    hub: FakeHub, folder: Path, pushed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fault(WEIGHTS_GET, count=99, keep=0)
    with refused("could not be reached or stopped answering .*: check the network"):
        pull(REPO, pushed)
    assert cached(tmp_path) == []
    hub.forget()
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    began = time.monotonic()
    hub.fault("/revision/", stall=30)
    with refused("stopped answering .ReadTimeout."):
        pull(REPO, pushed)
    hub.fault("POST /api/repos/create", stall=30)
    with refused("stopped answering .ReadTimeout."):
        push(folder, "org/new", token=OWNER)
    hub.fault(WEIGHTS_GET, keep=1000, stall=30)
    assert pull(REPO, pushed).is_dir()
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("lfs", [False, True])
@pytest.mark.parametrize("name", [manifest.WEIGHTS, "README.md"])
def test_corruption_of_the_right_length(
    name: str, lfs: bool, hub: FakeHub, pushed: str, tmp_path: Path
) -> None:
    hub.repo(REPO).lfs = {name} if lfs else set()
    hub.fault(f"GET .*/resolve/.*/{name}", corrupt=True)
    with refused(f"{name} here is not what org/name lists"):
        pull(REPO, pushed)
    assert cached(tmp_path) == []
    pulled = pull(REPO, pushed)
    assert contents(pulled)[name] == hub.repo(REPO).files()[name]


# --- what a repository may hold ---


@pytest.mark.usefixtures("pushed")
def test_foreign_files_are_never_fetched(hub: FakeHub, tmp_path: Path) -> None:
    sha = hub.create("org/other").commit({"adapter_model.bin": b"pickle", "README.md": b"Hello"})
    with refused("adapter folder org/other has no introspection.json"):
        pull("org/other", sha)
    assert not hub.asked("adapter_model.bin") and cached(tmp_path) == []
    hub.forget()
    foreign = ["adapter_model.bin", "evil.py", "optimizer.pt", "sub/introspection.json", "a.pkl"]
    sha = hub.repo(REPO).commit({name: b"print('ran')" for name in foreign})
    assert set(contents(pull(REPO, sha))) == set(manifest.FILES)
    assert {Path(c.path).name for c in hub.asked(RESOLVE)} == set(manifest.FILES)
    assert not hub.asked(r"sub/|\.bin|\.py|\.pt|\.pkl|gitattributes")


def test_too_large_is_refused_before_the_download(
    hub: FakeHub, pushed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = hub.repo(REPO)
    repo.claimed = {manifest.WEIGHTS: LARGEST_FILE + 1}
    with refused("adapter_model.safetensors of org/name is larger than 2 GiB"):
        pull(REPO, pushed)
    repo.claimed = dict.fromkeys((manifest.WEIGHTS, manifest.VECTORS, "README.md"), LARGEST_FILE)
    with refused("files of org/name are larger than 3 GiB together"):
        pull(REPO, pushed)
    assert not hub.asked(RESOLVE)
    repo.claimed = {manifest.WEIGHTS: 10}  # it lies
    monkeypatch.setattr(transfer, "LARGEST_FILE", 1 << 10)
    with refused("of org/name is larger than"):
        pull(REPO, pushed)
    assert cached(tmp_path) == []


def test_a_repository_that_contradicts_its_own_manifest(
    hub: FakeHub, pushed: str, tmp_path: Path
) -> None:
    repo = hub.repo(REPO)
    for name in (manifest.WEIGHTS, "evaluation.json"):
        sha = repo.commit({name: repo.files(pushed)[name] + b" "})
        with refused(f"{name} in org/name is damaged or was changed"):
            pull(REPO, sha)
        repo.commit({name: repo.files(pushed)[name]})
    assert cached(tmp_path) == []
    # The card is for people: its author may mend a word on the Hub's page.
    assert (pull(REPO, repo.commit({"README.md": b"Hi"})) / "README.md").read_bytes() == b"Hi"


def test_weights_that_are_no_safetensors(hub: FakeHub, folder: Path, tmp_path: Path) -> None:
    (folder / manifest.WEIGHTS).write_bytes(b"\xff" * 100)
    adapter_info.refresh_manifest(folder)
    sha = hub.create(REPO).commit(contents(folder))
    with refused("not a valid safetensors file"):
        pull(REPO, sha)
    assert cached(tmp_path) == []


# --- revisions and the cache ---


def test_a_branch_or_tag_is_turned_into_a_sha(
    hub: FakeHub, pushed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repo(REPO).refs["v1"] = pushed
    hub.repo(REPO).commit({"README.md": b"newer"})
    assert pull(REPO, "v1").name == pushed
    assert f"org/name at {pushed}" in capsys.readouterr().err
    newer = pull(REPO, "main")
    assert newer.name == hub.repo(REPO).head != pushed
    asked = {call.path.split("/resolve/")[1].split("/")[0] for call in hub.asked(RESOLVE)}
    assert asked == {pushed, newer.name}
    hub.forget()
    assert pull(REPO, "main") == newer  # asked what it is, nothing fetched again
    assert [call.method for call in hub.calls] == ["GET"] and not hub.asked(RESOLVE)


@pytest.mark.usefixtures("pushed")
def test_revisions_that_are_not_there(hub: FakeHub) -> None:
    for revision in ("gone", "0" * 40):
        with refused("org/name has no such revision"):
            pull(REPO, revision, token=OWNER)
    assert {call.token for call in hub.calls} == {None}
    hub.forget()
    for revision in ("", "-x", "a b", "x" * 300, "ü", "a?b"):
        with refused("is not a revision"):
            pull(REPO, revision)
    assert hub.calls == []


def test_a_hub_that_answers_with_another_commit(hub: FakeHub, pushed: str, tmp_path: Path) -> None:
    hub.repo(REPO).refs["1" * 40] = pushed
    with refused("something that no Hub says"):
        pull(REPO, "1" * 40)
    assert cached(tmp_path) == []


def test_what_was_checked_once_needs_no_network(hub: FakeHub, pushed: str, tmp_path: Path) -> None:
    first = pull(REPO, pushed)
    assert first.is_relative_to(tmp_path / "cache" / "adapters" / "org" / "name")
    hub.forget()
    assert pull(REPO, pushed) == first and hub.calls == []
    elsewhere = pull(REPO, pushed, cache=tmp_path / "mine")
    assert elsewhere == tmp_path / "mine" / "org" / "name" / pushed and hub.calls
    # Damaged on the disk: fetched again, not used and not left as it is.
    whole = (first / manifest.VECTORS).read_bytes()
    (first / manifest.VECTORS).write_bytes(bytes(reversed(whole)))
    hub.forget()
    assert (pull(REPO, pushed) / manifest.VECTORS).read_bytes() == whole and hub.calls


def in_a_process(sha: str, cache: Path, limit: int = resource.RLIM_INFINITY) -> str:
    """What a pull says in a process of its own, which can write files of at most ``limit`` bytes."""

    def work() -> None:
        sys.stderr = io.StringIO()
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            there.send(str(pull(REPO, sha, cache=cache)))
        except IntrospectionError as error:
            there.send(str(error))

    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    process = fork.Process(target=work)
    process.start()
    process.join(60)
    return here.recv()


def test_two_processes_at_once(hub: FakeHub, pushed: str, tmp_path: Path) -> None:
    hub.fault(WEIGHTS_GET, keep=1000, stall=1)  # long enough for both to be at it
    with ThreadPoolExecutor() as pool:
        said = list(pool.map(in_a_process, [pushed] * 2, [tmp_path / "mine"] * 2))
    assert said == 2 * [str(tmp_path / "mine" / "org" / "name" / pushed)]
    assert contents(Path(said[0]))[manifest.WEIGHTS] == hub.repo(REPO).files()[manifest.WEIGHTS]
    # Both asked what there is; one waited for the other instead of fetching it too.
    assert len(hub.asked("/revision/")) == 2 and len(hub.asked("GET .*resolve.*vectors")) == 1


def test_a_full_disk(pushed: str, tmp_path: Path) -> None:
    said = in_a_process(pushed, tmp_path / "cache" / "full", limit=1000)
    assert "There is no room on the disk for the files of org/name: free" in said
    assert cached(tmp_path) == []


def test_offline_with_and_without_what_is_needed(
    hub: FakeHub, pushed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = pull(REPO, pushed, cache=tmp_path / "mine")
    hub.forget()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pull(REPO, pushed, cache=tmp_path / "mine") == known
    for cache, revision in (("empty", pushed), ("mine", "main")):
        with refused("because HF_HUB_OFFLINE is set: unset it"):
            pull(REPO, revision, cache=tmp_path / cache, token=OWNER)
    assert hub.calls == []


def test_the_command_line_answers_before_torch_is_loaded() -> None:
    code = "import sys; from introspection.hub import space, transfer; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# --- addresses ---


def test_addresses_that_are_no_hub(
    hub: FakeHub, pushed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fault("/revision/", status=200, body=b"<html>Please log in</html>")
    with refused("something that no Hub says .* a login page in between"):
        pull(REPO, pushed)
    for wrong in ("huggingface.co", "ftp://x", "http://a b", "http://user:pw@host"):
        monkeypatch.setenv("HF_ENDPOINT", wrong)
        with refused("HF_ENDPOINT is .* which is no address"):
            pull(REPO, pushed)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with refused("could not be reached"):
            pull(REPO, pushed)


def test_failures_of_the_library() -> None:
    with refused("arrived incomplete"), readable_hub_errors(REPO, OWNER):
        raise OSError("Consistency check failed: file should be of size 9")
    with refused("something that no Hub says"), readable_hub_errors(REPO, OWNER):
        raise RuntimeError(f"xet: {OWNER}")


def test_a_cache_that_cannot_be_written(pushed: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with refused("could not be read or written here .Not a directory.: .*INTROSPECTION_CACHE"):
        pull(REPO, pushed, cache=tmp_path / "file")


# --- the card ---


def test_the_card_carries_the_measured_rates(folder: Path) -> None:
    text = card_text((folder / "README.md").read_text(), eval_results(EVALUATION), BASE, ("lora",))
    data = yaml.safe_load(text.split("---")[1])
    assert (data["base_model"], data["library_name"]) == (BASE, "peft")
    assert (data["license"], data["pipeline_tag"]) == ("apache-2.0", "text-generation")
    assert {"lora", "introspection"} <= set(data["tags"]) and data["language"] == "en"
    by_name = {r["dataset"]["name"]: r["metrics"] for r in data["model-index"][0]["results"]}
    shown = by_name["injected, unseen"]
    assert [metric["type"] for metric in shown] == ["detected", "correct"]
    rate = EVALUATION["conditions"]["injected, unseen"]["correct"]
    assert shown[1]["value"] == round(rate["successes"] / rate["n"], 4)
    interval = {"low_95": round(rate["low"], 4), "high_95": round(rate["high"], 4)}
    counts = {key: rate[key] for key in ("successes", "n", "contexts")}
    assert shown[1]["args"] == counts | interval
    # False positives are there as well as successes, and the Hub's own reader takes all of it.
    assert "flagged" in {metric["type"] for metric in by_name["clean, asked"]}
    assert len(ModelCard(text).data.eval_results) == text.count("  value:")


def test_a_card_keeps_its_text_and_is_merged_once() -> None:
    front = "---\nlicense: mit\ntags: [mine]\nbase_model: /home/me/model\n---\n"
    mine = front + "\n# Mine\n\n---\nrule\n"
    rates = eval_results(EVALUATION)
    once = card_text(mine, rates, "/home/me/model", ())
    assert once.endswith("\n# Mine\n\n---\nrule\n") and card_text(once, rates, "/x", ()) != mine
    assert card_text(once, rates, "/home/me/model", ()) == once
    data = yaml.safe_load(once.split("---")[1])
    assert data["license"] == "mit" and data["tags"][0] == "mine" and "base_model" not in data
    bare = card_text("# No front matter\n", (), BASE, ())
    assert bare.endswith("# No front matter\n")
    assert not {"model-index", "model_name"} & yaml.safe_load(bare.split("---")[1]).keys()
    assert card_text(bare, (), BASE, ()) == bare
    assert yaml.safe_load(card_text("", (), BASE, ()).split("---")[1])["base_model"] == BASE


def test_rates_that_are_garbled() -> None:
    for rate in ({"successes": 1, "n": 0, "low": 0, "high": 1, "contexts": 1}, {"n": 3}, [1]):
        with refused("evaluation.json lacks or garbles a rate"):
            eval_results({"conditions": {"injected, seen": {"correct": rate}}})
    assert eval_results({"conditions": {}}) == []


# --- the Space ---

FRONT = "---\ntitle: Demo\nsdk: gradio\napp_file: app.py\n---\n# Demo\n"


@pytest.fixture
def tree(folder: Path, tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    code = ("__init__.py", "hub.py", "data/words.tsv")
    junk = ("__pycache__/hub.cpython-311.pyc", ".hidden/x.py", "stray.pyc")
    ours = {"README.md", "app.py", "requirements.txt", *(f"introspection/{name}" for name in code)}
    others = {"secret.txt", ".env", "tests/test_x.py", *(f"introspection/{name}" for name in junk)}
    for name in ours | others:
        text = FRONT if name == "README.md" else "secret" if name in others else "ours"
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    shutil.copytree(folder, tree / "adapters" / "tiny")
    (tree / "adapters" / "tiny" / "optimizer.pt").write_text("secret")
    (tree / "introspection" / "link.py").symlink_to(tree / "secret.txt")
    (tree / "introspection" / "linked").symlink_to(tree / "tests")
    return tree


def space(hub: FakeHub) -> Repo:
    return hub.repo("org/demo", "space")


def test_a_space_is_made_and_updated(hub: FakeHub, tree: Path) -> None:
    pin = "a" * 40
    options: dict[str, Any] = {"hardware": "cpu-upgrade", "private": True, "token": OWNER}
    sha = push_space("org/demo", tree, model=DEFAULT, adapter=REPO, revision=pin, **options)
    made = space(hub)
    assert made.head == sha and made.sdk == "gradio" and made.private and len(made.commits) == 2
    assert made.hardware == "cpu-upgrade"
    assert made.variables == {
        "INTROSPECTION_MODEL": "smollm2-135m",
        "INTROSPECTION_ADAPTER": REPO,
        "INTROSPECTION_REVISION": pin,
    }
    ours = {"README.md", "app.py", "requirements.txt", "introspection/__init__.py"}
    ours |= {"introspection/hub.py", "introspection/data/words.tsv"}
    ours |= {f"adapters/tiny/{name}" for name in manifest.FILES}
    assert set(made.files()) == {".gitattributes", *ours}
    assert all(b"secret" not in data for data in made.files().values())
    # An update: a module goes, what somebody added beside ours stays, no variable is left over.
    (tree / "introspection" / "hub.py").unlink()
    made.commit({"packages.txt": b"git"})
    hub.forget()
    push_space("org/demo", tree, model="smollm2-135m", adapter="adapters/tiny", token=OWNER)
    assert set(made.files()) == {".gitattributes", "packages.txt", *ours} - {"introspection/hub.py"}
    assert made.variables == {
        "INTROSPECTION_MODEL": "smollm2-135m",
        "INTROSPECTION_ADAPTER": "adapters/tiny",
    }
    assert made.hardware == "cpu-upgrade" and not hub.asked("hardware")
    assert len(hub.asked("(POST|DELETE) .*variables")) == 2 and len(hub.asked("/commit/")) == 1


def test_a_space_that_could_not_start_is_not_made(hub: FakeHub, tree: Path) -> None:
    def attempt(**options: Any) -> None:
        push_space("org/demo", tree, **{"model": "smollm2-135m", "token": OWNER, **options})

    for revision in (None, "main", "abc"):
        with refused("needs the adapter org/name at one commit"):
            attempt(adapter=REPO, revision=revision)
    with refused("A revision belongs to an adapter on the Hub"):
        attempt(adapter="adapters/tiny", revision="a" * 40)
    with refused("There is no adapter folder 'adapters/gone'"):
        attempt(adapter="adapters/gone")
    others = (FRONT.replace("gradio", "docker"), FRONT.replace("app.py", "b.py"))
    for text in ("# Demo\n", "---\n[\n---\n", *others):
        (tree / "README.md").write_text(text)
        with refused("README.md has no front matter that starts a Space"):
            attempt()
    (tree / "README.md").write_text(FRONT)
    (tree / "app.py").unlink()
    with refused("has no app.py: run this in a checkout"):
        attempt()
    assert hub.calls == []


def test_a_race_for_a_space_changes_no_variable(hub: FakeHub, tree: Path) -> None:
    hub.create("org/demo", "space")
    hub.fault("/commit/", before=lambda: space(hub).commit({"theirs.txt": b""}))
    with refused("Somebody else changed org/demo"):
        push_space("org/demo", tree, model="smollm2-135m", token=OWNER)
    assert space(hub).variables == {}
    assert set(space(hub).files()) == {".gitattributes", "theirs.txt"}


def test_hardware_that_the_hub_does_not_have(hub: FakeHub, tree: Path) -> None:
    hub.fault("hardware", status=400, body=b'{"error": "Invalid flavor"}')
    with refused("HTTP 400, 'Invalid flavor'"):
        push_space("org/demo", tree, model="smollm2-135m", hardware="abacus", token=OWNER)
