"""The second host, to which LFS files are sent and from which they are read; it knows no tokens."""

from tests.hub.content import cdn_etag
from tests.hub.messages import Request, Response, Route, route, serve
from tests.hub.registry import Registry
from tests.hub.state import Refusal


class Cdn:
    """Handlers of signed requests."""

    def __init__(self, registry: Registry):
        self.registry = registry

    def routes(self) -> tuple[Route, ...]:
        """All there is."""
        return (
            route("PUT", r"/upload/{repo}/(?P<sha256>[0-9a-f]{64})", self.put),
            route("PUT", r"/part/(?P<upload>[0-9a-f]+)/(?P<number>\d+)", self.put_part),
            route("GET", r"/{repo}/(?P<sha256>[0-9a-f]{64})", self.get),
        )

    def get(self, request: Request) -> Response:
        """An object, whole or in part."""
        self.registry.check_signature(request)
        sha256 = request.values["sha256"]
        content = self.registry.objects.get(sha256)
        if content is None:
            raise Refusal(404, None, "The specified key does not exist.")
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Disposition": request.query.get("response-content-disposition", "inline"),
        }
        return serve(request, content, cdn_etag(sha256), headers)

    def put(self, request: Request) -> Response:
        """A whole object, which must be the one that was announced."""
        self.registry.check_signature(request)
        repo = self.registry.repos.get(request.values["repo"])
        if repo is None:
            raise Refusal(404, None, "The repository does not exist.")
        content, md5 = self.registry.keep(request.pieces())
        if content.sha256 != request.values["sha256"]:
            raise Refusal(400, None, "The digest you specified did not match what we received.")
        self.registry.add_object(repo, content)
        return Response(headers={"ETag": f'"{md5}"'})

    def put_part(self, request: Request) -> Response:
        """A part of an object; one that comes again replaces the first."""
        self.registry.check_signature(request)
        upload = self.registry.uploads.get(request.values["upload"])
        if upload is None:
            raise Refusal(404, None, "The specified upload does not exist.")
        part = self.registry.keep(request.pieces())
        upload.parts[int(request.values["number"])] = part
        return Response(headers={"ETag": f'"{part[1]}"'})
