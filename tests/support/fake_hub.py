"""A Hugging Face Hub in memory, on a local port: what the real client library needs, and faults.

Repositories with commits, branches and tags; public, private and gated; models and Spaces. Every
call is logged with its headers. Files of ``large`` bytes and more come and go as the Hub's large ones
do, outside the commit. A fault makes matching calls fail the way networks and servers do.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

_FRONT = re.compile(r"^\s*---\r?\n(.*?)\r?\n---", re.DOTALL)
_API = re.compile(r"/api/(model|space)s/([^/]+/[^/]+)(?:/(\w[\w-]*)(?:/(.+))?)?")
_RESOLVE = re.compile(r"/(?:(space)s/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


Reply = tuple[int, Any, dict[str, str]]  # status, body, headers


@dataclass
class Repo:
    """``commits`` maps shas to files; ``refs`` branches and tags to shas."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    lfs: set[str] = field(default_factory=set)  # names that are listed with a sha256
    claimed: dict[str, int] = field(default_factory=dict)  # sizes that are listed, true or not
    cdn: bool = False  # files are redirected to another host, as large ones are
    sdk: str | None = None
    variables: dict[str, str] = field(default_factory=dict)
    hardware: str | None = None

    @property
    def head(self) -> str:
        return self.refs["main"]

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.refs.get(revision, revision)]

    def commit(self, files: dict[str, bytes | None], message: str = "") -> str:
        """A commit that changes these files; None deletes one."""
        before = self.files() if self.refs else {}
        merged = {n: d for n, d in {**before, **files}.items() if d is not None}
        sha = hashlib.sha1(f"{len(self.commits)} {sorted(merged)} {message}".encode()).hexdigest()
        self.commits[sha], self.refs["main"] = merged, sha
        self.messages.append(message)
        return sha


@dataclass
class Fault:
    """What happens to the next ``count`` calls whose "METHOD path" matches ``pattern``.

    ``status``: answer with it. ``keep``: send so many bytes of the body, wait ``stall`` seconds, hang
    up. ``stall`` alone: say nothing for so long, then answer. ``corrupt``: change one byte in the
    middle of the body. ``before``: called first, with the call still unanswered.
    """

    pattern: str
    count: int = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    keep: int | None = None
    stall: float = 0.0
    corrupt: bool = False
    before: Any = None


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    headers: dict[str, str]
    status: int

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None


class _Refusal(Exception):
    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class FakeHub:
    """``with FakeHub() as hub``: ``hub.url`` is its address. ``accounts`` maps tokens to names; an
    account owns the repositories under its name. ``admitted`` may read gated ones."""

    def __init__(self) -> None:
        self.accounts = {"hf_owner_0123456789": "org", "hf_other_0123456789": "other"}
        self.admitted: set[str] = {"org"}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.moved: dict[str, str] = {}  # old names to new ones
        self.large = 10 << 20
        self.objects: dict[str, bytes] = {}  # large files by sha256
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.closing = threading.Event()
        self.lock = threading.RLock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.daemon_threads, self.server.block_on_close = True, False
        self.server.hub = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def create(self, name: str, kind: str = "model", **options: Any) -> Repo:
        repo = self.repos[kind, name] = Repo(**options)
        repo.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        return repo

    def repo(self, name: str, kind: str = "model") -> Repo:
        return self.repos[kind, name]

    def fault(self, pattern: str, **options: Any) -> None:
        self.faults.append(Fault(pattern, **options))

    def forget(self) -> None:
        self.calls.clear()
        self.faults.clear()

    def asked(self, pattern: str) -> list[Call]:
        return [c for c in self.calls if re.search(pattern, f"{c.method} {c.path}")]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        hub: FakeHub = self.server.hub  # type: ignore[attr-defined]
        url = urlsplit(self.path)
        self.asked_path, self.query = unquote(url.path), parse_qs(url.query)
        length = int(self.headers.get("Content-Length") or 0)
        self.sent = self.rfile.read(length) if length else b""
        line = f"{self.command} {self.asked_path}"
        with hub.lock:
            matching = (f for f in hub.faults if f.count and re.search(f.pattern, line))
            fault = next(matching, Fault(""))
            fault.count -= 1
        if fault.before is not None:
            fault.before()
        if fault.status is not None:
            self.answer(hub, fault.status, fault.body, fault.headers, Fault(""))
            return
        try:
            with hub.lock:
                status, body, headers = self.route(hub)
        except _Refusal as no:
            code = {"X-Error-Code": no.code} if no.code else {}
            headers = {"X-Error-Message": no.message, **code}
            status, body = no.status, json.dumps({"error": no.message}).encode()
        if isinstance(body, dict | list):
            body = json.dumps(body).encode()
            headers = {"Content-Type": "application/json", **headers}
        self.answer(hub, status, body, headers, fault)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def answer(
        self, hub: FakeHub, status: int, body: bytes, headers: dict[str, str], fault: Fault
    ) -> None:
        asked = {key.lower(): value for key, value in self.headers.items()}
        hub.calls.append(Call(self.command, self.asked_path, asked, status))
        whole = body
        if fault.corrupt:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        if fault.keep is not None:
            body = body[: fault.keep]
            self.close_connection = True
        else:
            hub.closing.wait(fault.stall)
        try:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(whole)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
                self.wfile.flush()
            if fault.keep is not None:
                hub.closing.wait(fault.stall)
        except OSError:  # the client has given up
            self.close_connection = True

    # --- who asks ---

    def account(self, hub: FakeHub, required: bool = False) -> str | None:
        sent = self.headers.get("Authorization")
        if sent is None and required:
            raise _Refusal(401, None, "Invalid username or password.")
        if sent is None:
            return None
        name = hub.accounts.get(sent.removeprefix("Bearer "))
        if name is None:
            raise _Refusal(401, None, "Invalid credentials in Authorization header")
        return name

    def owner(self, hub: FakeHub, name: str) -> None:
        if self.account(hub, required=True) != name.partition("/")[0]:
            raise _Refusal(403, None, "You do not have the rights to write here")

    def visible(self, hub: FakeHub, kind: str, name: str) -> Repo:
        who, repo = self.account(hub), hub.repos.get((kind, name))
        if repo is None or (repo.private and who != name.partition("/")[0]):
            raise _Refusal(404 if who else 401, "RepoNotFound", "Repository not found")
        return repo

    # --- what is asked ---

    def route(self, hub: FakeHub) -> Reply:
        path = self.asked_path
        for old, new in hub.moved.items():
            if f"/{old}/" in f"{path}/":
                return 307, b"", {"Location": self.path.replace(old, new)}
        if path == "/api/whoami-v2":
            return 200, {"name": self.account(hub, required=True), "type": "user"}, {}
        if path == "/api/repos/create":
            return self.creation(hub)
        if path == "/api/validate-yaml":
            return self.validation()
        if found := re.fullmatch(r"/(?:spaces/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self.large_files(hub, found[1])
        if self.command == "PUT" and path.startswith("/large/"):  # whoever has the link may write
            hub.objects[path.removeprefix("/large/")] = self.sent
            return 200, b"", {}
        if found := _API.fullmatch(path):
            return self.api(hub, *found.groups())
        if path.startswith("/cdn/"):  # whoever has the link may read
            kind, *name, sha, file = path.removeprefix("/cdn/").split("/")
            return self.content(hub.repo("/".join(name), kind).commits[sha][file], {})
        if found := _RESOLVE.fullmatch(path):
            return self.resolve(hub, found[1] or "model", found[2], found[3], found[4])
        raise _Refusal(404, None, f"No such page: {path}")

    def creation(self, hub: FakeHub) -> Reply:
        asked = json.loads(self.sent)
        name, kind = f"{asked['organization']}/{asked['name']}", asked.get("type", "model")
        self.owner(hub, name)
        url = {"url": f"{hub.url}/{'spaces/' if kind == 'space' else ''}{name}", "name": name}
        if (kind, name) in hub.repos:
            return 409, {**url, "error": "You already created this repo"}, {}
        private = asked.get("visibility") == "private"
        hub.create(name, kind, private=private, sdk=asked.get("sdk"))
        return 200, url, {}

    def validation(self) -> Reply:
        text = json.loads(self.sent)["content"]
        front = _FRONT.match(text)
        try:
            data = yaml.safe_load(front[1]) if front else {}
        except yaml.YAMLError:
            data = None
        if not isinstance(data, dict):
            return 400, {"errors": [{"message": "The YAML cannot be read"}]}, {}
        if not isinstance(data.get("license", ""), str):
            return 400, {"errors": [{"message": '"license" must be a string'}]}, {}
        return 200, {"errors": [], "warnings": []}, {}

    def large_files(self, hub: FakeHub, name: str) -> Reply:
        self.owner(hub, name)
        told = [
            {**one, "actions": {"upload": {"href": f"{hub.url}/large/{one['oid']}"}}}
            for one in json.loads(self.sent)["objects"]
        ]
        return 200, {"transfer": "basic", "objects": told}, {}

    def commit_of(self, repo: Repo, revision: str) -> str:
        sha = repo.refs.get(revision, revision)
        if sha not in repo.commits:
            raise _Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    def api(self, hub: FakeHub, kind: str, name: str, action: str, rest: str | None) -> Reply:
        repo = self.visible(hub, kind, name)
        if action in (None, "revision"):
            return 200, self.info(repo, name, self.commit_of(repo, rest or "main")), {}
        if action == "tree":
            revision, _, folder = (rest or "main").partition("/")
            files = repo.commits[self.commit_of(repo, revision)].items()
            inside = [(n, d) for n, d in files if n.startswith(f"{folder}/") or not folder]
            if not inside:
                raise _Refusal(404, "EntryNotFound", f"{folder} does not exist on {revision}")
            return 200, [self.entry(repo, n, d, "path", "oid") for n, d in inside], {}
        if self.command != "GET":
            self.owner(hub, name)
        if action == "preupload":
            files = repo.files()
            told = [
                {
                    "path": file["path"],
                    "uploadMode": "regular" if file["size"] < hub.large else "lfs",
                    "shouldIgnore": False,
                    "oid": blob(files[file["path"]]) if file["path"] in files else None,
                }
                for file in json.loads(self.sent)["files"]
            ]
            return 200, {"files": told}, {}
        if action == "commit":
            return self.commit(hub, repo, name)
        if action == "variables":
            asked = json.loads(self.sent) if self.sent else {}
            if self.command == "POST":
                repo.variables[asked["key"]] = asked["value"]
            elif self.command == "DELETE":
                del repo.variables[asked["key"]]
            told = {k: {"key": k, "value": v} for k, v in repo.variables.items()}
            return 200, told, {}
        if action == "hardware":
            repo.hardware = json.loads(self.sent)["flavor"]
            return 200, {"stage": "BUILDING", "hardware": {"requested": repo.hardware}}, {}
        raise _Refusal(404, None, f"No such page: {action}")

    def commit(self, hub: FakeHub, repo: Repo, name: str) -> Reply:
        changes: dict[str, bytes | None] = {}
        header: dict[str, Any] = {}
        for line in self.sent.splitlines():
            match json.loads(line):
                case {"key": "header", "value": header}:
                    pass
                case {"key": "file", "value": {"path": path, "content": content}}:
                    changes[path] = base64.b64decode(content)
                case {"key": "lfsFile", "value": {"path": path, "oid": oid}}:
                    changes[path] = hub.objects[oid]
                    repo.lfs.add(path)
                case {"key": "deletedFile", "value": {"path": path}}:
                    changes[path] = None
        if header.get("parentCommit") not in (None, repo.head):
            raise _Refusal(412, None, "A commit has happened since. Please refresh and try again.")
        sha = repo.commit(changes, header["summary"])
        url = f"{hub.url}/{name}/commit/{sha}"
        return 200, {"success": True, "commitOid": sha, "commitUrl": url}, {}

    def entry(
        self, repo: Repo, name: str, data: bytes, path: str, oid: str = "blobId"
    ) -> dict[str, Any]:
        size = repo.claimed.get(name, len(data))
        told: dict[str, Any] = {"type": "file", path: name, "size": size, oid: blob(data)}
        if name in repo.lfs:
            digest = sha256(data)
            told["lfs"] = {"oid": digest, "sha256": digest, "size": size, "pointerSize": 130}
            told[oid] = "0" * 40  # of the pointer file
        return told

    def info(self, repo: Repo, name: str, sha: str) -> dict[str, Any]:
        files = [self.entry(repo, n, d, "rfilename") for n, d in repo.commits[sha].items()]
        if "blobs" not in self.query:
            files = [{"rfilename": file["rfilename"]} for file in files]
        about = {"id": name, "sha": sha, "private": repo.private, "tags": [], "siblings": files}
        return {**about, "gated": "manual" if repo.gated else False}

    def resolve(self, hub: FakeHub, kind: str, name: str, revision: str, path: str) -> Reply:
        repo = self.visible(hub, kind, name)
        who = self.account(hub)
        if repo.gated and who not in hub.admitted:
            raise _Refusal(403 if who else 401, "GatedRepo", f"Access to {name} is restricted")
        sha = self.commit_of(repo, revision)
        data = repo.commits[sha].get(path)
        if data is None:
            raise _Refusal(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": sha, "ETag": f'"{blob(data)}"'}
        if repo.cdn:
            headers |= {
                "Location": f"http://localhost:{hub.server.server_port}/cdn/{kind}/{name}/{sha}/{path}",
                "X-Linked-ETag": f'"{blob(data)}"',
                "X-Linked-Size": str(len(data)),
            }
            return 302, b"", headers
        return self.content(data, headers)

    def content(self, data: bytes, known: dict[str, str]) -> Reply:
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **known}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span is None:
            return 200, data, headers
        start, end = int(span[1]), int(span[2] or len(data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        return 206, data[start : end + 1], headers


# Listings are asked for several times, and a large file takes long to hash on a busy machine.
@lru_cache(maxsize=64)
def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@lru_cache(maxsize=64)
def blob(data: bytes) -> str:
    """Git's name of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
