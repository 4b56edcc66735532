"""What a manifest says of a folder, compared with what lies there."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorsurgeon.checkpoint import MANIFEST_NAME, Manifest
from tensorsurgeon.checkpoint.header import RANK_LIMIT
from tensorsurgeon.errors import Problem
from tensorsurgeon.specs import DType, StoredTensor, TensorSpec
from tensorsurgeon.verify.digests import Digests, Extent
from tensorsurgeon.verify.listing import Listing, is_beside, is_plain_name, usable
from tensorsurgeon.verify.outcome import Findings

_AGAIN = "download or make the checkpoint again"

Tensors = Mapping[str, StoredTensor]


class Recorded:
    """A manifest, beside the folder it lies in.

    Args:
        manifest: the manifest.
        folder: the folder.
        listing: what lies there.
        findings: where problems are noted.
    """

    def __init__(
        self, manifest: Manifest, folder: Path, listing: Listing, findings: Findings
    ) -> None:
        self.manifest = manifest
        self._folder, self._listing, self._findings = folder, listing, findings
        self.expected: dict[Extent, str] = {}
        """What to digest, and the digest it must have."""
        self.shards: list[str] = []
        """The shards that are there."""
        self.tensors: dict[str, dict[str, StoredTensor]] = defaultdict(dict)
        """The tensors of each shard."""
        for name, entry in manifest.tensors.items():
            if tensor := self._tensor(name, entry):
                self.tensors[entry["shard"]][name] = tensor
        for tensors in self.tensors.values():
            self._drop_overlapping(tensors)
        self._look_for_extras()
        for name, entry in manifest.files.items():
            self._expect_file(name, entry)
        for name, entry in manifest.shards.items():
            self._expect_shard(name, entry)

    def compare_header(self, shard: str, stored: Tensors) -> None:
        """Note where a shard's own header differs from the manifest."""
        path, recorded = self._folder / shard, self.tensors[shard]
        begin = next((tensor.offset for tensor in stored.values()), None)
        said = self.manifest.shards[shard]["header_bytes"]
        if begin is not None and begin != said:
            self._findings.problem(path, f"has a header of {begin} bytes; the manifest says {said}")
        if missing := [name for name in recorded if name not in stored]:
            self._findings.problem(path, f"lacks {some(missing)}, which the manifest has in it")
        if extra := [name for name in stored if name not in recorded]:
            self._findings.problem(path, f"holds {some(extra)}, which the manifest has not in it")
        for name, tensor in stored.items():
            if name in recorded and recorded[name] != tensor:
                here, there = _place(tensor), _place(recorded[name])
                self._findings.problem(path, f"tensor '{name}': {here}; the manifest: {there}")

    def compare_digests(self, digests: Digests) -> None:
        """Note whose bytes are not those that were written."""
        for extent, expected in self.expected.items():
            found = digests[extent]
            if isinstance(found, Problem):
                self._findings.add(found)
            elif found != expected:
                what = f"{extent.what}: its bytes differ" if extent.what else "its bytes differ"
                self._findings.problem(
                    extent.path, f"{what} from those that the manifest was made for", fix=_AGAIN
                )

    def _look_for_extras(self) -> None:
        known = {*self.manifest.files, *self.manifest.shards, MANIFEST_NAME}
        for name, entry in self._listing.items():
            if name not in known and not is_beside(name):
                kind = "a folder" if entry.is_folder else "a file"
                self._findings.problem(
                    entry.path,
                    f"is {kind} that the manifest does not name",
                    fix="move it elsewhere",
                )

    def _expect_file(self, name: str, entry: Mapping[str, Any]) -> None:
        path = self._file(name)
        if path is not None and self._has_size(path, entry["bytes"]):
            self.expected[Extent(path=path, start=0, nbytes=entry["bytes"])] = entry["sha256"]

    def _expect_shard(self, name: str, entry: Mapping[str, Any]) -> None:
        path = self._file(name)
        if path is None:
            return
        self.shards.append(name)
        self._has_size(path, entry["bytes"])
        size = self._size(path)
        if 8 <= entry["header_bytes"] <= size:
            header = Extent(path=path, start=0, nbytes=entry["header_bytes"], what="its header")
            self.expected[header] = entry["header"]
        cut = []
        for tensor, stored in self.tensors[name].items():
            if stored.offset + stored.spec.nbytes > size:
                cut.append(tensor)
                continue
            extent = extent_of(stored)
            self.expected[extent] = self.manifest.tensors[tensor]["sha256"]
        if cut:
            self._findings.problem(path, f"ends before the end of {some(cut)}", fix=_AGAIN)

    def _drop_overlapping(self, tensors: dict[str, StoredTensor]) -> None:
        """No byte is digested twice, however many tensors are said to have it."""
        end = 0
        for tensor in sorted(tensors.values(), key=lambda t: (t.offset, t.spec.nbytes)):
            if tensor.offset < end:
                del tensors[tensor.spec.name]
                self._senseless(tensor.spec.name)
            else:
                end = tensor.offset + tensor.spec.nbytes

    def _senseless(self, tensor: str) -> None:
        self._findings.problem(
            self._folder / MANIFEST_NAME, f"what it says of tensor '{tensor}' makes no sense"
        )

    def _file(self, name: str) -> Path | None:
        if not is_plain_name(name):
            self._findings.problem(
                self._folder / MANIFEST_NAME, f"'{name}' is no name of a file in this folder"
            )
            return None
        path = self._folder / name
        return path if usable(self._listing, path, self._findings) else None

    def _size(self, path: Path) -> int:
        identity = self._listing[path.name].identity
        assert identity is not None
        return identity.nbytes

    def _has_size(self, path: Path, nbytes: int) -> bool:
        size = self._size(path)
        if size != nbytes:
            self._findings.problem(
                path, f"is {size} bytes long; the manifest says {nbytes}", fix=_AGAIN
            )
        return size == nbytes

    def _tensor(self, name: str, entry: Mapping[str, Any]) -> StoredTensor | None:
        """A tensor as the manifest describes it; anybody can make one with a right digest."""
        shape, offset = entry["shape"], entry["offset"]
        counts = [*shape, offset]
        if (
            entry["dtype"] not in DType.__members__
            or len(shape) > RANK_LIMIT
            or not all(type(count) is int and 0 <= count < 1 << 64 for count in counts)
            or entry["shard"] not in self.manifest.shards
        ):
            self._senseless(name)
            return None
        spec = TensorSpec(name=name, dtype=DType[entry["dtype"]], shape=tuple(shape))
        return StoredTensor(spec=spec, path=self._folder / entry["shard"], offset=offset)


def extent_of(tensor: StoredTensor) -> Extent:
    """The bytes of a tensor."""
    return Extent(
        path=tensor.path,
        start=tensor.offset,
        nbytes=tensor.spec.nbytes,
        what=f"tensor '{tensor.spec.name}'",
    )


def some(names: list[str]) -> str:
    """A few of the names of tensors, and how many there are more."""
    listed = ", ".join(f"'{name}'" for name in names[:4])
    more = f" and {len(names) - 4} others" if len(names) > 4 else ""
    return f"tensor{'s' * (len(names) != 1)} {listed}{more}"


def _place(tensor: StoredTensor) -> str:
    spec = tensor.spec
    return f"{spec.dtype.value} {list(spec.shape)} at byte {tensor.offset}"
