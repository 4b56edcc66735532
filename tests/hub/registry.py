"""What both hosts of the Hub share: repositories, accounts, LFS objects and signed addresses."""

import hashlib
import hmac
import secrets
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote, urlencode

from tests.hub.content import Content
from tests.hub.messages import Request
from tests.hub.state import Account, Refusal, Repo

NO_QUERY: Mapping[str, str] = MappingProxyType({})


class Upload:
    """An upload in parts: what it shall become, and the parts that have arrived."""

    def __init__(self, repo: Repo, sha256: str, size: int):
        self.repo = repo
        self.sha256 = sha256
        self.size = size
        self.parts: dict[int, tuple[Content, str]] = {}


class Registry:
    """Who may do what with which repository.

    Attributes:
        repos: by id.
        accounts: by token.
        objects: the LFS objects by SHA-256, whichever repository they were uploaded to.
        page_size: entries of a tree or a history in one answer.
        part_size: bytes of a part; what is larger is uploaded in parts.
        resolve_cache: whether regular files are redirected to `/api/resolve-cache/…` on the
            same host before they are served, as on the real Hub.
        compress: whether regular files are sent by gzip to those who take it, as on the real Hub.
        checked_cards: the texts that were sent to validate-yaml.
        ignored: paths that a repository's .gitignore is taken to name.
    """

    def __init__(self, storage: Path):
        self.repos: dict[str, Repo] = {}
        self.accounts: dict[str, Account] = {}
        self.objects: dict[str, Content] = {}
        self.uploads: dict[str, Upload] = {}
        self.page_size = 1000
        self.part_size = 16 * 1024 * 1024
        self.resolve_cache = False
        self.compress = False
        self.checked_cards: list[str] = []
        self.ignored: set[str] = set()
        self.lock = threading.Lock()
        self._storage = storage
        self._key = secrets.token_bytes(16)

    def account(self, request: Request) -> Account | None:
        """Whose token came along; None if none did. A token of nobody is refused everywhere."""
        header = request.headers.get("authorization")
        if header is None:
            return None
        account = self.accounts.get(header.removeprefix("Bearer "))
        if account is None:
            raise Refusal(401, None, "Invalid credentials in Authorization header")
        return account

    def login(self, request: Request) -> Account:
        """The same, where a token is needed."""
        account = self.account(request)
        if account is None:
            raise Refusal(401, None, "Invalid username or password.")
        return account

    def visible(self, request: Request) -> Repo:
        """The repository that the path names, if it is there and not hidden from the account."""
        account = self.account(request)
        repo = self.repos.get(request.values["repo"])
        if repo is not None and (not repo.private or owns(account, repo.namespace)):
            return repo
        if account is None:
            # The real Hub leaves the code away, and the client knows this case by `https://`.
            raise Refusal(401, "RepoNotFound", "Invalid username or password.")
        raise Refusal(404, "RepoNotFound", "Repository not found")

    def readable(self, request: Request) -> Repo:
        """The same, if the account may have the content of its files."""
        repo = self.visible(request)
        account = self.account(request)
        if not repo.gated or owns(account, repo.namespace):
            return repo
        restricted = f"Access to model {repo.id} is restricted"
        if account is None:
            message = f"{restricted}. You must have access to it and be authenticated to access it."
            raise Refusal(401, "GatedRepo", message)
        if account.name not in repo.granted:
            raise Refusal(403, "GatedRepo", f"{restricted} and you are not in the authorized list.")
        return repo

    def writable(self, request: Request) -> Repo:
        """The same, if the account may change it."""
        self.login(request)
        repo = self.visible(request)
        self.check_writer(request, repo.namespace)
        return repo

    def check_writer(self, request: Request, namespace: str) -> Account:
        """The account, if it may write in a namespace."""
        account = self.login(request)
        if not account.write or not owns(account, namespace):
            message = f"You don't have the rights to write under the namespace {namespace!r}"
            raise Refusal(403, None, message)
        return account

    def sign(self, url: str, path: str, query: Mapping[str, str] = NO_QUERY) -> str:
        """An address that needs no token."""
        quoted = quote(path)
        signature = hmac.digest(self._key, quoted.encode(), "sha256").hex()
        return f"{url}{quoted}?{urlencode({**query, 'Signature': signature})}"

    def expire(self) -> None:
        """From now on the addresses signed before are refused, as an hour later on the real CDN."""
        self._key = secrets.token_bytes(16)

    def check_signature(self, request: Request) -> None:
        """Refuses what `sign` did not make, and a token beside the signature, as S3 does."""
        if "authorization" in request.headers:
            raise Refusal(400, None, "Only one auth mechanism allowed")
        signature = hmac.digest(self._key, request.path.encode(), "sha256").hex()
        if request.query.get("Signature") != signature:
            raise Refusal(403, None, "The request signature we calculated does not match")

    def keep(self, pieces: Iterator[bytes]) -> tuple[Content, str]:
        """Writes what is uploaded to the disk; also the MD5 that S3 has for an ETag."""
        self._storage.mkdir(exist_ok=True)
        path = self._storage / secrets.token_hex(8)
        sha256, md5 = hashlib.sha256(), hashlib.md5()
        with path.open("wb") as file:
            for piece in pieces:
                sha256.update(piece)
                md5.update(piece)
                file.write(piece)
        return Content.of(path, sha256=sha256.hexdigest()), md5.hexdigest()

    def add_object(self, repo: Repo, content: Content) -> None:
        """From now on the object is there and need not be uploaded to this repository."""
        with repo.lock:
            self.objects[content.sha256] = content
            repo.lfs.add(content.sha256)


def owns(account: Account | None, namespace: str) -> bool:
    """Whether a namespace is the account's own or one of its organisations."""
    return account is not None and namespace in account.namespaces
