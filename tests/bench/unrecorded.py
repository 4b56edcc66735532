"""`tensorsurgeon` without digests and journal, to measure what they cost.

Started as `python -m tests.bench.unrecorded apply …`. What it writes has a manifest of zeros.
"""

import math
from types import SimpleNamespace

from tensorsurgeon import cli
from tensorsurgeon.execute import copying, staging
from tensorsurgeon.writing import journal


class _NoDigest:
    """A digest of nothing, whatever it is given."""

    def update(self, data: object) -> None: ...

    def hexdigest(self) -> str:
        return "0" * 64


def _write_nothing(_journal: journal.Journal, _data: bytes) -> None: ...


def main() -> None:
    """Replace both, then run the command line as it is."""
    for module in (copying, staging):
        vars(module)["hashlib"] = SimpleNamespace(sha256=_NoDigest)
    vars(journal)["BATCH_SECONDS"] = math.inf
    journal.Journal._append = _write_nothing  # type: ignore[method-assign]
    cli.main()


if __name__ == "__main__":
    main()
