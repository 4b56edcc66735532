"""How far a download is, told to a function instead of drawn on stderr."""

from collections.abc import Callable
from typing import Any

from huggingface_hub.utils import tqdm


def meter(advance: Callable[[int], None]) -> type:
    """A class of the client's progress bars that shows nothing.

    Args:
        advance: told the number of bytes that have come, those of an earlier attempt included; may
            raise to stop the download.
    """

    class Meter(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            advance(int(options.get("initial") or 0))
            hidden = options | {"disable": True}
            super().__init__(*arguments, **hidden)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            advance(int(n or 0))

        # With these two the client makes one bar of a transfer, not one for each kind of bytes.
        def update_transfer(self, n: float | None = 1) -> None: ...

        def set_transfer_postfix_str(self, *arguments: Any, **options: Any) -> None: ...

    return Meter
