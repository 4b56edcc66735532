"""Shards sent to the Hub as they are made, and shown there all at once in the end."""

from collections.abc import Mapping
from pathlib import Path

from tensorsurgeon.checkpoint import RemoteFile
from tensorsurgeon.hub.client import set_for_pushing
from tensorsurgeon.hub.pushing import MESSAGE, Pushed, push_files
from tensorsurgeon.hub.sending import Sending, lacking
from tensorsurgeon.hub.target import Target
from tensorsurgeon.specs import Progress


class HubDelivery:
    """Sends shards that are not kept; conforms to the executor's `Delivery`.

    Args:
        target: where to.
        message: the commit's.
    """

    def __init__(self, target: Target, message: str = MESSAGE) -> None:
        self._target, self._message = target, message

    @set_for_pushing()
    def lacking(self, shards: Mapping[str, RemoteFile]) -> list[str]:
        """Which of these shards the Hub does not have.

        Raises:
            PushError: it cannot be asked.
        """
        return lacking(self._target, shards)

    @set_for_pushing()
    def send(self, shard: Path, progress: Progress) -> str:
        """Send a shard; returns its SHA-256, hexadecimal.

        Raises:
            PushError: the Hub does not take it.
            KeyboardInterrupt: soon.
        """
        sending = Sending(self._target, 2 * shard.stat().st_size, _halved(progress))
        (file,) = sending.digest({shard.name: shard})
        sending.send([file])
        file.check_unchanged()
        return str(file.content.sha256)

    @set_for_pushing()
    def publish(self, folder: Path, shards: Mapping[str, RemoteFile]) -> Pushed:
        """Commit what was sent, with the files of a folder.

        Raises:
            PushError: as `push_folder`.
        """
        return push_files(self._target, folder, shards, self._message)


def _halved(progress: Progress) -> Progress:
    """Told of reading and sending; tells of as many bytes as there are."""
    return lambda done, total: progress(done // 2, total // 2)
