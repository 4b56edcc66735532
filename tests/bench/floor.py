"""The least a merge can do: read every input once, write as many bytes, flush.

A program of its own, on the standard library alone, started as
`python -I -S floor.py WRITE OUT SIZE INPUT...` where WRITE is one of

- direct: O_DIRECT, past the page cache (the default, and the fastest as a rule);
- early: write-back of a chunk is started as soon as it is written;
- buffered: plain writes, the kernel decides; everything is flushed at the end.

Two threads, positioned reads and writes, one reused buffer each. What is written is whatever
the buffer holds: no arithmetic, no format.
"""

import mmap
import os
import sys
import threading
from itertools import chain

THREADS = 2
CHUNK = 4 * 2**20

# (file descriptor, offset, bytes)
Span = tuple[int, int, int]


def spans(descriptor: int, size: int) -> list[Span]:
    """A file cut into chunks; the last may be short."""
    return [(descriptor, at, min(CHUNK, size - at)) for at in range(0, size, CHUNK)]


def interleave(reads: list[Span], writes: list[Span]) -> list[tuple[bool, Span]]:
    """Both lists in one, evenly mixed, so that write-back overlaps with reading.

    Returns:
        Pairs of (is a write, span); a write follows the reads that would give its values.
    """
    timed = chain(
        (((index + 1) / len(reads), False, span) for index, span in enumerate(reads)),
        (((index + 1) / len(writes), True, span) for index, span in enumerate(writes)),
    )
    return [(is_write, span) for _, is_write, span in sorted(timed)]


def stream(steps: list[tuple[bool, Span]], write: str) -> None:
    """Carry out the steps of one thread."""
    # Anonymous mapped memory starts on a page, as O_DIRECT demands.
    with mmap.mmap(-1, CHUNK) as buffer, memoryview(buffer) as view:
        for is_write, (descriptor, at, size) in steps:
            if not is_write:
                os.preadv(descriptor, [view[:size]], at)
                continue
            # O_DIRECT takes whole pages only; main cuts the file to size afterwards.
            length = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE if write == "direct" else size
            os.pwrite(descriptor, view[:length], at)
            if write == "early":
                os.posix_fadvise(descriptor, at, size, os.POSIX_FADV_DONTNEED)


def main(write: str, out: str, size: str, *inputs: str) -> None:
    """Read the inputs, write `size` bytes to `out`, flush."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | (os.O_DIRECT if write == "direct" else 0)
    target = os.open(out, flags, 0o644)
    os.truncate(target, int(size))
    sources = [os.open(path, os.O_RDONLY) for path in inputs]
    reads = [span for source in sources for span in spans(source, os.fstat(source).st_size)]
    writes = spans(target, int(size))
    finished: list[int] = []

    def work(share: int) -> None:
        stream(interleave(reads[share::THREADS], writes[share::THREADS]), write)
        finished.append(share)

    threads = [threading.Thread(target=work, args=[share]) for share in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # An exception ends its thread only; concurrent.futures would tell, but is slow to import.
    if len(finished) < THREADS:
        sys.exit(1)
    os.truncate(target, int(size))
    os.fsync(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
