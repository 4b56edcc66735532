"""What the Hub answers to those who write: repositories, uploads, commits, branches and tags."""

import base64
import binascii
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.hub.content import Content, Entry, is_lfs
from tests.hub.messages import Request, Response, Route, reply, route
from tests.hub.registry import Registry, Upload
from tests.hub.state import GITATTRIBUTES, Commit, Refusal, Repo, entries


class Writing:
    """Handlers of the requests that change something."""

    def __init__(self, registry: Registry, cdn_url: str):
        self.registry = registry
        self.cdn_url = cdn_url

    def routes(self) -> tuple[Route, ...]:
        """Those that write."""
        api = "/api/models/{repo}"
        return (
            route("POST", "/api/repos/create", self.create),
            route("DELETE", "/api/repos/delete", self.delete),
            route("POST", "/api/validate-yaml", self.validate_yaml),
            route("POST", "/api/complete_multipart/(?P<upload>[0-9a-f]+)", self.complete),
            route("POST", f"{api}/preupload/{{revision}}", self.preupload),
            route("POST", f"{api}/commit/{{revision}}", self.commit),
            route("POST", f"{api}/branch/{{revision}}", self.create_branch),
            route("DELETE", f"{api}/branch/{{revision}}", self.delete_branch),
            route("POST", f"{api}/tag/{{revision}}", self.create_tag),
            route("GET", f"{api}/auth-check/write", self.auth_check),
            route("POST", r"/{repo}\.git/info/lfs/objects/batch", self.batch),
            route("POST", r"/{repo}\.git/info/lfs/verify", self.verify),
        )

    def create(self, request: Request) -> Response:
        """A repository with one commit; public unless asked otherwise."""
        asked = request.json()
        owner = asked.get("organization") or self.registry.login(request).name
        self.registry.check_writer(request, owner)
        repo_id = f"{owner}/{asked['name']}"
        answer = {"url": f"{request.url}/{repo_id}", "name": repo_id, "id": repo_id}
        private = asked.get("visibility") == "private" or asked.get("private") is True
        with self.registry.lock:
            if repo_id in self.registry.repos:
                message = "You already created this model repo"
                return reply({"error": message, **answer}, status=409)
            repo = Repo(id=repo_id, private=private)
            repo.commit(entries({".gitattributes": GITATTRIBUTES}), title="initial commit")
            self.registry.repos[repo_id] = repo
        return reply(answer)

    def delete(self, request: Request) -> Response:
        """Takes a repository away."""
        asked = request.json()
        request.values = {"repo": f"{asked.get('organization') or ''}/{asked['name']}".strip("/")}
        repo = self.registry.writable(request)
        with self.registry.lock:
            del self.registry.repos[repo.id]
        return reply({})

    def validate_yaml(self, request: Request) -> Response:
        """Notes a model card; one whose front matter does not end is refused."""
        card = request.json()["content"].replace("\r\n", "\n")
        self.registry.checked_cards.append(card)
        if not card.startswith("---\n"):
            message = "empty or missing yaml metadata in repo card"
            return reply({"errors": [], "warnings": [{"message": message}]})
        if "\n---" not in card[3:]:
            errors = [{"message": "the front matter has no end"}]
            return reply({"errors": errors, "warnings": []}, status=400)
        return reply({"errors": [], "warnings": []})

    def preupload(self, request: Request) -> Response:
        """By which way each file shall come, and what the branch has at its path."""
        repo = self.registry.writable(request)
        tree = repo.resolve(request.values["revision"]).tree
        files = []
        for file in request.json()["files"]:
            path = file["path"]
            mode = "lfs" if is_lfs(path, file["size"]) else "regular"
            known = {"oid": tree[path].etag} if path in tree else {}
            ignored = path in self.registry.ignored
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": ignored, **known})
        return reply({"files": files})

    def batch(self, request: Request) -> Response:
        """Where to put each object; nowhere for one that the repository has."""
        repo = self.registry.writable(request)
        asked = request.json()
        if asked.get("operation") != "upload" or asked.get("hash_algo", "sha256") != "sha256":
            raise Refusal(422, None, "only uploads by SHA-256 are served")
        multipart = "multipart" in asked.get("transfers", ["basic"])
        objects, in_parts = [], False
        for wanted in asked["objects"]:
            oid, size = wanted["oid"], wanted["size"]
            found: dict[str, Any] = {"oid": oid, "size": size, "authenticated": True}
            if oid not in repo.lfs:
                parts = multipart and size > self.registry.part_size
                in_parts = in_parts or parts
                upload = self._by_parts if parts else self._at_once
                verify = {"href": f"{request.url}/{repo.id}.git/info/lfs/verify", "header": {}}
                found["actions"] = {"upload": upload(request, repo, oid, size), "verify": verify}
            objects.append(found)
        return reply({"transfer": "multipart" if in_parts else "basic", "objects": objects})

    def _at_once(self, request: Request, repo: Repo, oid: str, size: int) -> dict[str, Any]:
        return {"href": self.registry.sign(self.cdn_url, f"/upload/{repo.id}/{oid}"), "header": {}}

    def _by_parts(self, request: Request, repo: Repo, oid: str, size: int) -> dict[str, Any]:
        part_size, name = self.registry.part_size, secrets.token_hex(8)
        self.registry.uploads[name] = Upload(repo, oid, size)
        header = {"chunk_size": str(part_size)}
        for number in range(1, -(-size // part_size) + 1):
            header[str(number)] = self.registry.sign(self.cdn_url, f"/part/{name}/{number}")
        href = self.registry.sign(request.url, f"/api/complete_multipart/{name}")
        return {"href": href, "header": header}

    def complete(self, request: Request) -> Response:
        """Puts an object together; the address is signed, and no token comes along."""
        self.registry.check_signature(request)
        upload = self.registry.uploads.get(request.values["upload"])
        if upload is None:
            raise Refusal(404, None, "The specified upload does not exist.")
        asked = request.json()
        numbers = sorted(upload.parts)
        etags = [upload.parts[number][1] for number in numbers]
        named = [part["etag"].strip('"') for part in asked["parts"]]
        if numbers != list(range(1, len(numbers) + 1)) or named != etags:
            raise Refusal(400, None, "One or more of the specified parts could not be found.")
        pieces = (piece for number in numbers for piece in upload.parts[number][0].pieces())
        content, _ = self.registry.keep(pieces)
        if (content.sha256, content.size) != (upload.sha256, upload.size):
            raise Refusal(400, None, "The digest you specified did not match what we received.")
        self.registry.add_object(upload.repo, content)
        del self.registry.uploads[request.values["upload"]]
        return reply({"completed": True})

    def verify(self, request: Request) -> Response:
        """Whether an object has arrived whole."""
        repo = self.registry.writable(request)
        asked = request.json()
        oid = asked["oid"]
        if oid not in repo.lfs or self.registry.objects[oid].size != asked["size"]:
            raise Refusal(404, None, "The object does not exist")
        return reply({"message": "ok"})

    def commit(self, request: Request) -> Response:
        """A commit on a branch, or on a new pull request, all at once or not at all."""
        repo = self.registry.writable(request)
        account = self.registry.login(request)
        with repo.lock:
            change = self._change(repo, request.body())
            branch, pull = request.values["revision"], {}
            if request.flag("create_pr"):
                number = sum(name.startswith("refs/pr/") for name in repo.branches) + 1
                base, branch = repo.head(branch), f"refs/pr/{number}"
                repo.branches[branch] = base.oid
                pull = {"pullRequestUrl": f"{request.url}/{repo.id}/discussions/{number}"}
            try:
                commit = change.apply(repo, branch, author=account.name)
            except Refusal:
                if pull:
                    del repo.branches[branch]
                raise
        url = f"{request.url}/{repo.id}/commit/{commit.oid}"
        return reply({"success": True, "commitOid": commit.oid, "commitUrl": url, **pull})

    def _change(self, repo: Repo, body: bytes) -> "Change":
        change = Change()
        for line in body.splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            path = value.get("path", "")
            if ".." in path.split("/") or path.startswith("/"):
                raise Refusal(400, None, f"Invalid path: {path}")
            if key == "header":
                change.header = value
            elif key == "file":
                change.added[path] = regular(value)
            elif key == "lfsFile":
                if value["oid"] not in repo.lfs:
                    raise Refusal(400, None, f"LFS pointer of {path} points to no object")
                change.added[path] = Entry(content=self.registry.objects[value["oid"]], lfs=True)
            elif key in ("deletedFile", "deletedFolder"):
                change.removed.append(path + "/" * (key == "deletedFolder" and path[-1:] != "/"))
            else:
                raise Refusal(400, None, f"Unknown key: {key}")
        return change

    def create_branch(self, request: Request) -> Response:
        """A branch from a revision, `main` by default."""
        repo = self.registry.writable(request)
        name = request.values["revision"]
        start = (request.json() or {}).get("startingPoint", "main")
        with repo.lock:
            if name in repo.branches:
                raise Refusal(409, None, f"Reference already exists: {name}")
            repo.branches[name] = repo.resolve(start).oid
        return reply({})

    def delete_branch(self, request: Request) -> Response:
        """Takes a branch away, its commits not."""
        repo = self.registry.writable(request)
        with repo.lock:
            repo.head(request.values["revision"])
            del repo.branches[request.values["revision"]]
        return reply({})

    def create_tag(self, request: Request) -> Response:
        """A tag on a revision."""
        repo = self.registry.writable(request)
        name = request.json()["tag"]
        with repo.lock:
            if name in repo.tags:
                raise Refusal(409, None, f"Tag reference exists already: {name}")
            repo.tags[name] = repo.resolve(request.values["revision"]).oid
        return reply({})

    def auth_check(self, request: Request) -> Response:
        """Whether the account may write."""
        self.registry.writable(request)
        return reply({})


@dataclass(kw_only=True, slots=True)
class Change:
    """What a commit's body asks for."""

    header: Mapping[str, str] = field(default_factory=dict)
    added: dict[str, Entry] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)

    def apply(self, repo: Repo, branch: str, *, author: str) -> Commit:
        """Makes the commit."""
        return repo.commit(
            self.added,
            removed=self.removed,
            branch=branch,
            parent=self.header.get("parentCommit"),
            title=self.header.get("summary", ""),
            message=self.header.get("description", ""),
            author=author,
        )


def regular(value: Mapping[str, str]) -> Entry:
    """A file that came within the commit."""
    text = value["content"]
    try:
        source = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise Refusal(400, None, f"{value['path']} is no base64") from None
    source = source if value.get("encoding") == "base64" else text.encode()
    return Entry(content=Content.of(source), lfs=False)
