"""The least a stream can do: download the ranges that a merge reads, and compute nothing.

A program of its own, started as `python -m tests.bench.download THREADS LIST`, with LIST a JSON
file of ranges (repository, file, first byte, bytes) in the order in which the engine asks for
them. Each thread takes the next one: one request by the same client, read into a buffer that is
used again, thrown away.
"""

import json
import sys
import threading
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import build_hf_headers, get_session

Range = tuple[str, str, int, int]

BUFFER = 2**20
"""Bytes that each thread keeps."""


class Download:
    """All ranges, and where the Hub has sent us for their files."""

    def __init__(self, ranges: list[Range]) -> None:
        self.waiting = iter(ranges)
        self.received: list[int] = []
        self._signed: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()

    def work(self) -> None:
        """What one thread does."""
        buffer, total = bytearray(BUFFER), 0
        while True:
            with self._lock:
                found = next(self.waiting, None)
            if found is None:
                break
            total += self._fetch(*found, buffer)
        self.received.append(total)

    def _fetch(self, repo: str, file: str, start: int, count: int, buffer: bytearray) -> int:
        signed = self._signed.get((repo, file))
        asked = {"Range": f"bytes={start}-{start + count - 1}", "Accept-Encoding": "identity"}
        if signed is None:
            asked |= build_hf_headers()
        url = signed or f"{constants.ENDPOINT}/{repo}/resolve/main/{file}"
        place = total = 0
        with get_session().stream("GET", url, headers=asked) as response:
            response.raise_for_status()
            self._signed[repo, file] = str(response.url)
            for piece in response.iter_raw():
                if place + len(piece) > len(buffer):
                    place = 0
                buffer[place : place + len(piece)] = piece
                place += len(piece)
                total += len(piece)
        return total


def main(threads: str, path: str) -> None:
    """Download all; the number of bytes must be that of the list."""
    ranges: list[Range] = [tuple(entry) for entry in json.loads(Path(path).read_text())]
    download = Download(ranges)
    workers = [threading.Thread(target=download.work) for _ in range(int(threads))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    # An exception ends its thread only.
    if sum(download.received) != sum(count for *_, count in ranges):
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
