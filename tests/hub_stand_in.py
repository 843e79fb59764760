"""A Hugging Face Hub for tests: one local HTTP server that speaks the part of the protocol its Python client uses.

Repositories live in memory. Small text files are committed inline, all others go through Git LFS, as on the real Hub;
Xet is switched off by `environment`. The client reads HF_ENDPOINT and HF_TOKEN when it is imported, so pushes
and loads run in a process of their own:

    with HubStandIn() as hub:
        subprocess.run([sys.executable, "push.py"], env=hub.environment(folder, token=OWNER))
"""

import base64
import hashlib
import json
import os
import re
import threading
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

OWNER, STRANGER = "hf_owner", "hf_stranger"
USERS = {OWNER: "owner", STRANGER: "stranger"}
INLINE_SUFFIXES = {".json", ".md", ".py", ".txt", ".gitattributes"}


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    head: str = ""

    def sha(self, revision: str | None) -> str:
        return self.head if revision in (None, "main") else revision

    def commit(self, changes: dict[str, bytes | None]) -> str:
        self.files = {path: content for path, content in {**self.files, **changes}.items() if content is not None}
        self.head = hashlib.sha1(f"{len(self.commits)} {sorted(self.files)}".encode()).hexdigest()
        self.commits[self.head] = self.files
        return self.head


class HubStandIn:
    """The server; `repositories` maps "models/owner/name" or "datasets/owner/name" to what was pushed."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (HubHandler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "HubStandIn":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()

    def environment(self, home: str | Path, token: str | None = None, **more: str) -> dict[str, str]:
        """The environment of a client process: this server, a cache of its own and, if given, a token."""
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE_"))}
        client = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
        client |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        return {**keep, **client, **({"HF_TOKEN": token} if token else {}), **more}


def is_ignored(file: str, rules: str) -> bool:
    """Whether a .gitignore names a file, or a folder that it lies in."""
    patterns = [line.rstrip("/") for line in rules.splitlines() if line and not line.startswith("#")]
    return any(fnmatch(part, pattern) for part in file.split("/") for pattern in patterns)


class HubHandler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if path == "/api/whoami-v2":
            return self.answer({"name": self.user, "type": "user", "orgs": []}) if self.user else self.refuse(401)
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            kind, name, revision = match.groups()
            if repository := self.readable(kind, name, revision):
                sha = repository.sha(revision)
                files = [{"rfilename": file} for file in repository.commits[sha]]
                self.answer({"id": name, "sha": sha, "private": repository.private, "siblings": files, "tags": []})
            return None
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/tree/([^/]+)/?(.*)", path):
            kind, name, revision, folder = match.groups()
            if repository := self.readable(kind, name, revision):
                files = repository.commits[repository.sha(revision)]
                found = self.listing(files, folder, recursive="recursive=true" in self.path.lower())
                self.answer(found) if found or not folder else self.refuse(404, "EntryNotFound")
            return None
        if match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            kind, name, revision, file = match.groups()
            if repository := self.readable("datasets" if kind else "models", name, revision):
                if repository.gated and self.user != name.split("/")[0]:
                    return self.refuse(403 if self.user else 401, "GatedRepo")
                sha = repository.sha(revision)
                if file not in repository.commits[sha]:
                    return self.refuse(404, "EntryNotFound", sha)
                content = repository.commits[sha][file]
                self.answer(content, **{"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'})
            return None
        return self.refuse(404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if not self.user:
            return self.refuse(401)
        if path == "/api/repos/create":
            wanted = json.loads(body)
            kind, name = wanted.get("type") or "model", f"{wanted.get('organization') or self.user}/{wanted['name']}"
            known = f"{kind}s/{name}" in self.hub.repositories
            if not known and not name.startswith(f"{self.user}/"):
                return self.refuse(403)
            if not known:
                repository = self.hub.repositories[f"{kind}s/{name}"] = Repository(
                    private=wanted.get("visibility") == "private"
                )
                repository.commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
            url = f"{self.hub.url}/{'' if kind == 'model' else kind + 's/'}{name}"
            return self.answer({"url": url, "id": name}, status=409 if known else 200)
        if match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            objects = [
                {**wanted, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}}}
                for wanted in json.loads(body)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": objects})
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/(preupload|commit)/main", path):
            kind, name, action = match.groups()
            repository = self.hub.repositories.get(f"{kind}/{name}")
            if repository is None:
                return self.refuse(404, "RepoNotFound")
            if not name.startswith(f"{self.user}/"):
                return self.refuse(403)
            if action == "preupload":
                asked = json.loads(body)
                rules = asked.get("gitIgnore") or repository.files.get(".gitignore", b"").decode()
                answers = []
                for file in (file["path"] for file in asked["files"]):
                    mode = "regular" if Path("x" + file).suffix in INLINE_SUFFIXES else "lfs"
                    answers.append({"path": file, "uploadMode": mode, "shouldIgnore": is_ignored(file, rules)})
                return self.answer({"files": answers})
            sha = repository.commit(self.changes(body.decode().splitlines()))
            return self.answer({"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha})
        return self.refuse(404)

    def do_PUT(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        content = self.rfile.read(int(self.headers["Content-Length"]))
        name = hashlib.sha256(content).hexdigest()
        if self.path != f"/lfs/{name}":
            return self.refuse(400)
        self.hub.large_files[name] = content
        return self.answer({})

    def changes(self, lines: list[str]) -> dict[str, bytes | None]:
        """The body of a commit: one JSON object per line."""
        changes: dict[str, bytes | None] = {}
        for operation in map(json.loads, filter(None, lines)):
            value = operation["value"]
            if operation["key"] == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                changes[value["path"]] = self.hub.large_files[value["oid"]]
            elif operation["key"] == "deletedFile":
                changes[value["path"]] = None
        return changes

    @property
    def user(self) -> str | None:
        return USERS.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def readable(self, kind: str, name: str, revision: str | None) -> Repository | None:
        """The repository, if this user may see it; otherwise answer as the Hub does: it may not even exist."""
        repository = self.hub.repositories.get(f"{kind}/{name}")
        if repository is None or (repository.private and self.user != name.split("/")[0]):
            self.refuse(404 if self.user else 401, "RepoNotFound")
            return None
        if repository.sha(revision) not in repository.commits:
            self.refuse(404, "RevisionNotFound")
            return None
        return repository

    def listing(self, files: dict[str, bytes], folder: str, recursive: bool) -> list[dict]:
        """The files below a folder, or only its direct children, where a folder is one entry."""
        start, found = f"{folder}/" if folder else "", {}
        for path, content in files.items():
            if path.startswith(start):
                child, _, rest = path.removeprefix(start).partition("/")
                if rest and not recursive:
                    found[child] = {"type": "directory", "path": start + child, "size": 0, "oid": "0" * 40}
                else:
                    oid = hashlib.sha1(content).hexdigest()
                    found[path] = {"type": "file", "path": path, "size": len(content), "oid": oid}
        return list(found.values())

    def refuse(self, status: int, code: str | None = None, sha: str | None = None) -> None:
        headers = {
            "X-Error-Code": code,
            "X-Repo-Commit": sha,
            "X-Error-Message": f"This token may not do that ({status})",
        }
        self.answer(
            {"error": code or "refused"}, status=status, **{name: value for name, value in headers.items() if value}
        )

    def answer(self, content: bytes | dict | list, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass
