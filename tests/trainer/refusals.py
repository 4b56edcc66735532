"""Runs trainings that must be refused: with a message, and before anything is written."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tensorsurgeon.trainer.data.shard_writer import writing_shards
from tensorsurgeon.trainer.data.shards import tokenizer_digest
from tests.trainer.data.tokens import Written, document
from tests.trainer.runs import write_run
from tests.trainer.warm import Warm

Tokens = tuple[Path, Path]


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Makes run files and runs them, each in a folder of its own."""

    command: Warm
    model: Path
    tokens: Tokens
    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "place" / "run.yaml"

    def refused(
        self,
        code: int,
        *said: str,
        model: Path | None = None,
        tokens: Tokens | None = None,
        options: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        **changes: Any,
    ) -> str:
        """Runs it, which must end with this code and say all that; nothing must be left."""
        write_run(self.run, model or self.model, tokens or self.tokens, **changes)
        done = self.command.run(self.run, *options, env=env)
        assert done.returncode == code, done.stderr
        for text in said:
            assert text in done.stderr
        assert "Traceback" not in done.stderr
        assert not done.stdout
        assert [path.name for path in self.run.parent.iterdir()] == ["run.yaml"]
        return done.stderr

    def copy(self, **config: Any) -> Path:
        """The model with other values in config.json."""
        folder = self.folder / "model"
        shutil.copytree(self.model, folder)
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
        return folder

    def with_tensors(self, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
        """The model with other tensors."""
        path = self.copy() / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, {"format": "pt"})
        return path.parent

    def shards(self, documents: Written, *, name: str = "shards", **others: Any) -> Path:
        """Token shards of this model's tokenizer."""
        folder = self.folder / name
        settings: dict[str, Any] = {
            "kind": "text",
            "tokenizer": tokenizer_digest(self.model),
            "vocabulary": 384,
            "end_of_document": 0,
            "shard_size": 10_000,
        }
        with writing_shards(folder, **(settings | others)) as writer:
            writer.add([document(tokens, answers) for tokens, answers in documents])
        return folder
