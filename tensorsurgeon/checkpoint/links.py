"""Links: a stranger's folder must not make its reader copy files from elsewhere on the disk."""

import os
import re
from pathlib import Path

STAY_INSIDE = "put the file itself there, or name the folder it is in"
"""What to do about a link that leaves."""


def leaves(folder: Path, name: str) -> bool:
    """Whether a file of a folder lies elsewhere, by a link of its own or one it leads through.

    The folder itself may be a link. The Hub's cache is known: in `snapshots/<commit>` every file
    is a link to the `blobs` beside `snapshots`, and what is there may be one to those that all
    repositories of the cache share, `blobs/<two digits>/<digest>`.
    """
    # Not Path.resolve, which raises on a loop of links.
    root, target = Path(os.path.realpath(folder)), Path(os.path.realpath(folder / name))
    if target.is_relative_to(root):
        return False
    snapshots = next((above for above in root.parents if above.name == "snapshots"), None)
    if snapshots is None:
        return True
    is_shared = re.fullmatch(
        "[0-9a-f]{2}/[0-9a-f]{64}", os.path.relpath(target, snapshots.parent.parent / "blobs")
    )
    return not is_shared and not target.is_relative_to(snapshots.parent / "blobs")
