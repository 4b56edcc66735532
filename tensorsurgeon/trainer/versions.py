"""The versions of what a training runs on."""

import platform
from importlib.metadata import PackageNotFoundError, version

from tensorsurgeon import __version__


def versions() -> dict[str, str]:
    """Of this program, Python and the packages that decide what is computed."""
    found = {"tensorsurgeon": __version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # built in place
            found[package] = "unknown"
    return found
