"""What lies beside the shards and comes from elsewhere: files of the sources."""

from tensorsurgeon.errors import CheckpointError
from tensorsurgeon.plan import SidecarFile


def content_of(sidecar: SidecarFile) -> bytes:
    """The bytes of a file that goes along.

    Raises:
        CheckpointError: it cannot be read any more.
    """
    if sidecar.data is not None:
        return sidecar.data
    try:
        return sidecar.path.read_bytes()
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise CheckpointError(what, where=str(sidecar.path)) from None
