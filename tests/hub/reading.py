"""What the Hub answers to those who only read: information, trees, histories and files."""

import gzip
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from tests.hub.content import Content, Entry
from tests.hub.messages import Request, Response, Route, reply, route, serve
from tests.hub.registry import Registry
from tests.hub.state import Commit, Refusal, Repo, folder_oid, folders, inside


class Reading:
    """Handlers of the requests that change nothing."""

    def __init__(self, registry: Registry, cdn_url: str):
        self.registry = registry
        self.cdn_url = cdn_url

    def routes(self) -> tuple[Route, ...]:
        """Those that only read."""
        api = "/api/models/{repo}"
        return (
            route("GET", "/api/whoami-v2", self.whoami),
            route("GET", f"{api}/tree/{{revision}}(?:/{{path}})?", self.tree),
            route("POST", f"{api}/paths-info/{{revision}}", self.paths_info),
            route("GET", f"{api}/commits/{{revision}}", self.commits),
            route("GET", f"{api}/revision/{{revision}}", self.info),
            route("GET", f"{api}/refs", self.refs),
            route("GET", f"{api}/auth-check", self.auth_check),
            route("GET", api, self.info),
            route("GET", "/api/resolve-cache/models/{repo}/{revision}/{path}", self.cached),
            route("GET", "/{repo}/resolve/{revision}/{path}", self.resolve),
        )

    def whoami(self, request: Request) -> Response:
        """Whose the token is."""
        account = self.registry.login(request)
        role = "write" if account.write else "read"
        orgs = sorted(account.namespaces - {account.name})
        return reply(
            {
                "type": "user",
                "id": account.name,
                "name": account.name,
                "fullname": account.name.title(),
                "orgs": [{"type": "org", "id": org, "name": org, "fullname": org} for org in orgs],
                "auth": {"type": "access_token", "accessToken": {"displayName": "t", "role": role}},
            }
        )

    def info(self, request: Request) -> Response:
        """A repository at a revision, with the names of its files."""
        repo = self.registry.visible(request)
        commit = repo.resolve(request.values.get("revision", "main"))
        detailed = request.flag("blobs")
        siblings = [sibling(path, entry, detailed) for path, entry in commit.tree.items()]
        first = list(repo.history(commit))[-1]
        return reply(
            {
                "_id": repo.id,
                "id": repo.id,
                "modelId": repo.id,
                "author": repo.namespace,
                "sha": commit.oid,
                "lastModified": commit.date,
                "createdAt": first.date,
                "private": repo.private,
                "gated": "manual" if repo.gated else False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": siblings,
                "spaces": [],
                "usedStorage": sum(entry.content.size for entry in commit.tree.values()),
            }
        )

    def tree(self, request: Request) -> Response:
        """The files and folders below a folder, page by page."""
        repo = self.registry.visible(request)
        commit = repo.resolve(request.values["revision"])
        folder = request.values["path"].strip("/")
        if folder and not any(inside(path, folder) for path in commit.tree):
            raise Refusal(404, "EntryNotFound", f"{folder} does not exist on {commit.oid}")
        below = [*folders(commit.tree), *commit.tree]
        paths = sorted(path for path in below if inside(path, folder))
        if not request.flag("recursive"):
            rest = len(folder) + 1 if folder else 0
            paths = [path for path in paths if "/" not in path[rest:]]
        described = [describe(commit, path, request.flag("expand")) for path in paths]
        return self._page(request, described, commit)

    def paths_info(self, request: Request) -> Response:
        """The same for some paths; those that do not exist are left out."""
        repo = self.registry.visible(request)
        commit = repo.resolve(request.values["revision"])
        asked = form(request)
        paths = [path.strip("/") for path in asked["paths"]]
        known = {*commit.tree, *folders(commit.tree)}
        expand = str(asked.get("expand", [False])[-1]).lower() == "true"
        return reply([describe(commit, path, expand) for path in paths if path in known])

    def commits(self, request: Request) -> Response:
        """The history of a revision, newest first, page by page."""
        repo = self.registry.visible(request)
        commit = repo.resolve(request.values["revision"])
        listed = [
            {
                "id": each.oid,
                "title": each.title,
                "message": each.message,
                "authors": [{"user": each.author}],
                "date": each.date,
            }
            for each in repo.history(commit)
        ]
        return self._page(request, listed, commit)

    def refs(self, request: Request) -> Response:
        """Branches, tags, and pull requests if they are asked for."""
        repo = self.registry.visible(request)
        with repo.lock:
            branches, tags = dict(repo.branches), dict(repo.tags)
        pulls = {name: oid for name, oid in branches.items() if name.startswith("refs/pr/")}
        answer = {
            "branches": listed("refs/heads/", branches.keys() - pulls.keys(), branches),
            "tags": listed("refs/tags/", tags.keys(), tags),
            "converts": [],
        }
        if request.flag("include_prs"):
            answer["pullRequests"] = listed("", pulls.keys(), pulls)
        return reply(answer)

    def auth_check(self, request: Request) -> Response:
        """Whether the account may read files."""
        self.registry.readable(request)
        return reply({})

    def resolve(self, request: Request) -> Response:
        """A regular file, or where the CDN has an LFS file."""
        repo = self.registry.readable(request)
        commit, entry = self._entry(request, repo)
        if not entry.lfs and not self.registry.resolve_cache:
            return self._serve(request, commit, entry)
        path = request.values["path"]
        target = f"{request.url}/api/resolve-cache/models/{repo.id}/{commit.oid}/{quote(path)}"
        if entry.lfs:
            query = {
                "response-content-disposition": f'inline; filename="{path.rpartition("/")[2]}"',
                "path": path,
            }
            sha256 = entry.content.sha256
            target = self.registry.sign(self.cdn_url, f"/{repo.id}/{sha256}", query)
        headers = {
            "Location": target,
            "X-Repo-Commit": commit.oid,
            "X-Linked-Size": str(entry.content.size),
            "X-Linked-Etag": f'"{request.etag or entry.etag}"',
            "Accept-Ranges": "bytes",
        }
        return Response(status=302 if entry.lfs else 307, headers=headers)

    def cached(self, request: Request) -> Response:
        """A regular file, at the end of a redirect."""
        return self._serve(request, *self._entry(request, self.registry.readable(request)))

    def _entry(self, request: Request, repo: Repo) -> tuple[Commit, Entry]:
        commit = repo.resolve(request.values["revision"])
        entry = commit.tree.get(request.values["path"])
        if entry is None:
            raise Refusal(404, "EntryNotFound", "Entry not found", commit.oid)
        return commit, entry

    def _serve(self, request: Request, commit: Commit, entry: Entry) -> Response:
        headers = {"Content-Type": "text/plain; charset=utf-8", "X-Repo-Commit": commit.oid}
        accepted = request.headers.get("accept-encoding", "")
        if self.registry.compress and "gzip" in accepted and "range" not in request.headers:
            content = Content.of(gzip.compress(entry.content.read()))
            more = {"Content-Encoding": "gzip", "ETag": f'W/"{request.etag or entry.etag}"'}
            return Response(headers=headers | more, content=content, length=content.size)
        return serve(request, entry.content, entry.etag, headers)

    def _page(self, request: Request, values: Sequence[object], commit: Commit) -> Response:
        start, size = int(request.query.get("cursor", 0)), self.registry.page_size
        headers = {"X-Total-Count": str(len(values)), "X-Repo-Commit": commit.oid}
        if start + size < len(values):
            query = urlencode(request.query | {"cursor": str(start + size)})
            headers["Link"] = f'<{request.url}{request.path}?{query}>; rel="next"'
        return reply(values[start : start + size], headers=headers)


def describe(commit: Commit, path: str, expand: bool) -> dict[str, Any]:
    """A file or folder as trees list it."""
    found: dict[str, Any]
    if entry := commit.tree.get(path):
        found = {"type": "file", "oid": entry.oid, "size": entry.content.size, "path": path}
        if entry.lfs:
            found["lfs"] = {"oid": entry.content.sha256, **sizes(entry)}
    else:
        oid = folder_oid(commit.tree, path)
        found = {"type": "directory", "oid": oid, "size": 0, "path": path}
    if expand:
        found["lastCommit"] = {"id": commit.oid, "title": commit.title, "date": commit.date}
    return found


def sibling(path: str, entry: Entry, detailed: bool) -> dict[str, Any]:
    """A file as the information about a repository lists it."""
    if not detailed:
        return {"rfilename": path}
    found = {"rfilename": path, "blobId": entry.oid, "size": entry.content.size}
    return found | ({"lfs": {"sha256": entry.content.sha256, **sizes(entry)}} if entry.lfs else {})


def sizes(entry: Entry) -> dict[str, int]:
    """What is said of an LFS file beside its digest."""
    return {"size": entry.content.size, "pointerSize": len(entry.content.pointer)}


def listed(prefix: str, names: Any, targets: Mapping[str, str]) -> list[dict[str, str]]:
    """References as the client expects them."""
    return [
        {"name": name, "ref": f"{prefix}{name}", "targetCommit": targets[name]}
        for name in sorted(names)
    ]


def form(request: Request) -> dict[str, list[str]]:
    """The body's fields, which may be a form or JSON."""
    body = request.body()
    if "json" in request.headers.get("content-type", ""):
        fields = json.loads(body)
        return {name: v if isinstance(v, list) else [v] for name, v in fields.items()}
    return parse_qs(body.decode())
