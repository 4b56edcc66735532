"""A second opinion on a file's header: that of the safetensors library."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tensorsurgeon.specs import DType, StoredTensor
from tensorsurgeon.verify.outcome import Findings

_RARE = frozenset(
    {
        DType.F4,
        DType.F6_E2M3,
        DType.F6_E3M2,
        DType.F8_E8M0,
        DType.F8_E4M3FNUZ,
        DType.F8_E5M2FNUZ,
        DType.C64,
    }
)
"""The dtypes that versions of the library since 0.5 do not all read."""


def read_again(path: Path, tensors: Mapping[str, StoredTensor], findings: Findings) -> None:
    """Let the library read a header, and compare what it found with what we found.

    Args:
        path: a file whose header was read.
        tensors: what it says.
        findings: where differences are noted.
    """
    try:
        with _twin(path) as twin:
            _compare(path, twin, tensors, findings)
    except OSError as error:
        findings.not_checked(f"{path} with the safetensors library: {error.strerror}")


@contextmanager
def _twin(path: Path) -> Iterator[str]:
    """A file with the same header and the same size, and a hole for the tensors.

    The library maps the file it opens, and a mapped file that shrinks meanwhile kills the process.
    The copy has no name, so that nothing of it can stay behind.
    """
    with path.open("rb") as file, tempfile.TemporaryFile() as twin:
        prefix = file.read(8)  # one that was cut meanwhile is refused by the library
        twin.write(prefix + file.read(int.from_bytes(prefix, "little")))
        twin.truncate(os.fstat(file.fileno()).st_size)
        twin.flush()
        yield f"/dev/fd/{twin.fileno()}"


def _compare(
    path: Path, twin: str, tensors: Mapping[str, StoredTensor], findings: Findings
) -> None:
    import safetensors

    try:
        with safetensors.safe_open(twin, framework="np") as opened:
            found = {
                name: (part.get_dtype(), tuple(part.get_shape()))
                for name in opened.keys()  # noqa: SIM118 - it is no mapping
                for part in [opened.get_slice(name)]
            }
    except safetensors.SafetensorError as error:
        dtypes = {tensor.spec.dtype for tensor in tensors.values()}
        if unknown := unknown_dtypes(dtypes, str(error)):
            findings.not_checked(
                f"{path} with the safetensors library: version {safetensors.__version__} "
                f"does not know {', '.join(unknown)}"
            )
        else:
            findings.problem(path, f"is refused by the safetensors library: {error}")
        return
    ours = {name: (t.spec.dtype.value, t.spec.shape) for name, t in tensors.items()}
    if found != ours:
        names = sorted(n for n in {*found, *ours} if found.get(n) != ours.get(n))
        findings.problem(
            path,
            f"is read otherwise by the safetensors library: {len(names)} tensors differ, "
            f"as '{names[0]}'",
        )


def unknown_dtypes(dtypes: set[DType], message: str) -> list[str]:
    """The dtypes of a file that may be why a version of the library refuses it.

    Args:
        dtypes: those of the file.
        message: why the library refuses it; versions before 0.6 do not say which dtype it was.
    """
    rare = sorted(dtype.value for dtype in dtypes & _RARE)
    named = [dtype for dtype in rare if f"`{dtype}`" in message.partition(", expected")[0]]
    return named or ([] if "`" in message else rare)
