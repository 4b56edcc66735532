"""Wheels laid by hand, for an installation that asks no package index."""

import zipfile
from pathlib import Path


def wheel(folder: Path, name: str, version: str, script: str) -> None:
    """Writes a wheel with one program, `name`, of a few lines of bash."""
    folder.mkdir(exist_ok=True)
    before = f"{name}-{version}"
    files = {
        f"{before}.data/scripts/{name}": f"#!/usr/bin/env bash\n{script}\n",
        f"{before}.dist-info/METADATA": (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        ),
        f"{before}.dist-info/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    record = f"{before}.dist-info/RECORD"
    files[record] = "".join(f"{path},,\n" for path in (*files, record))
    with zipfile.ZipFile(folder / f"{before}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = 0o100755 << 16  # pip keeps that a program may be run
            archive.writestr(entry, text)
