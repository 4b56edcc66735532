"""The second implementation: asks mergekit, which stays in a process of its own."""

import itertools
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from safetensors.numpy import save_file

from tests.cli.checkpoints import TORCH_NAMES, Tensors, read_tensors
from tests.methods.cases import Case

PEER = Path(__file__).with_name("peer.py")


class Oracle:
    """mergekit's `merge_tensors`. It is started at the first question, and once.

    Args:
        python: the interpreter of mergekit's environment.
        folder: an empty folder.
    """

    def __init__(self, python: Path, folder: Path) -> None:
        self._python, self._folder = python, folder
        self._numbers = itertools.count()
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.communicate()

    def __call__(
        self,
        method: str,
        models: Mapping[str, Tensors],
        *,
        base: bool = False,
        compute: str | None = None,
        written: str | None = None,
        **parameters: Any,
    ) -> Tensors:
        """Merges models tensor by tensor.

        Args:
            method: its name in mergekit.
            models: each model's tensors, all of the same names.
            base: whether the first model is the base.
            compute: dtype the inputs are converted to, as the format calls it; by default their
                own, or what they are promoted to.
            written: dtype of the result; by default the one that was computed in.
            parameters: the method's; one that a model has is a mapping by the models' names.
        """
        place = self._folder / f"{next(self._numbers)}"
        place.mkdir()
        inputs = {
            f"{model}/{name}": values
            for model, tensors in models.items()
            for name, values in tensors.items()
        }
        save_file(inputs, place / "inputs")
        self._ask(
            method=method,
            parameters=parameters,
            ids=list(models),
            base=base,
            inputs=str(place / "inputs"),
            output=str(place / "out.safetensors"),
            dtype=compute and TORCH_NAMES[compute],
            out_dtype=written and TORCH_NAMES[written],
        )
        merged = read_tensors(place)
        (place / "inputs").unlink()
        return merged

    def asked(
        self,
        case: Case,
        models: Mapping[str, Tensors],
        *,
        compute: str | None = None,
        written: str | None = None,
    ) -> Tensors:
        """What it makes of a case; the dtypes are as for any other question."""
        assert case.method is not None
        return self(
            case.method,
            {name: models[name] for name in case.models},
            base=case.based or case.rooted,
            compute=compute,
            written=written,
            **case.parameters,
        )

    def _ask(self, **request: Any) -> None:
        if self._process is None:
            self._process = subprocess.Popen(
                [self._python, PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps(request), file=process.stdin, flush=True)
        answer = process.stdout.readline()
        if not answer:
            pytest.fail(f"mergekit ended with {process.wait()}")
        if said := answer.strip():
            pytest.fail(f"mergekit: {json.loads(said)}")
