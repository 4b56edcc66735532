"""Tensors that are computed: evaluated span by span, rounded once, and written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tensorsurgeon.checkpoint import Reader
from tensorsurgeon.errors import CheckpointError, OutputError
from tensorsurgeon.execute.evaluate import Evaluator, Function, Ready, Surveys, spans
from tensorsurgeon.execute.staging import TensorWriter
from tensorsurgeon.kernels import COMPILED, Raw, Scratch, Values, encode
from tensorsurgeon.kernels.random import Key, fill_words, key_of
from tensorsurgeon.kernels.task_vectors import Stored as Span
from tensorsurgeon.kernels.task_vectors import lost, stochastic
from tensorsurgeon.plan import Node, OutputTensor, Stored, base_of
from tensorsurgeon.specs import SPAN, DType


@dataclass(kw_only=True, slots=True)
class Findings:
    """What was found of one tensor while it was written.

    Attributes:
        overflowed: finite values that the dtype cannot hold.
        nonfinite: values that were NaN or infinite.
        update: sum of magnitudes by which the values differ from the base's, and of those that
            rounding took back to the base's value.
    """

    overflowed: int = 0
    nonfinite: int = 0
    update: tuple[float, float] = field(default=(0.0, 0.0))


class Computer:
    """Computes tensors for one thread.

    Args:
        reader: has the sources' files open.
        writer: this thread's way to the output.
        buffers: how many span buffers the tensors need at most.
        step: told the number of bytes after each read; may raise to stop the run.
        note: told what an operator has to say of its coefficients.
        surveys: what operators have found of their tensors.
        updated: told of each tensor's update, see `Findings`.
        seed: of random rounding; None to round to the nearest.
        allow_nonfinite: whether NaNs and infinities are let pass.
    """

    def __init__(
        self,
        reader: Reader,
        writer: TensorWriter,
        buffers: int,
        step: Callable[[int], None],
        note: Callable[[str], None],
        *,
        surveys: Surveys,
        updated: Callable[[tuple[float, float]], None],
        seed: int | None,
        allow_nonfinite: bool,
    ) -> None:
        self._scratch = Scratch(buffers)
        self._evaluator = Evaluator(reader, self._scratch, step, note, surveys)
        self._writer = writer
        self._updated = updated
        self._seed = seed
        self._allow_nonfinite = allow_nonfinite
        self._words = np.empty(SPAN if seed is not None else 0, np.uint32)

    def compute(self, batch: Sequence[OutputTensor]) -> str:
        """Make a tensor and write it wherever it goes; returns its SHA-256.

        Args:
            batch: the tensor, under each of its names; see `plan.batches`.

        Raises:
            CheckpointError: an input has a NaN or an infinity, or dot products that are not finite.
            OutputError: a finite value is too large for the tensor's dtype.
        """
        tensor, scratch = batch[0], self._scratch
        spec = tensor.spec
        size = spec.dtype.bits // 8
        self._writer.start([(t.shard, t.offset) for t in batch])
        found = Findings()
        base = base_of(tensor.node)
        # Not by its name: a tensor that is written to several places is made once or several times.
        key = None if self._seed is None else key_of(self._seed, str(tensor.node), "rounding")
        with np.errstate(all="ignore"):
            node = self._evaluator.prepare(tensor.node, spec)
            buffer, kept = scratch.take(), scratch.take() if isinstance(base, Stored) else None
            for start, stop in spans(spec.elements):
                values = buffer[: stop - start]
                origin = self._read(node, base, start, values, kept)
                raw = np.frombuffer(self._writer.reserve(len(values) * size), np.uint8)
                self._round(values, spec.dtype, raw, key, start, found)
                if origin is not None:
                    update, undone = lost(origin, values, Span(raw, spec.dtype))
                    found.update = found.update[0] + update, found.update[1] + undone
            scratch.give_back_all()
        digest = self._writer.finish()
        self._judge(tensor, found)
        self._updated(found.update)
        return digest

    def _round(
        self,
        values: Values,
        dtype: DType,
        raw: Raw,
        key: Key | None,
        start: int,
        found: Findings,
    ) -> None:
        """Fill a span's stored bytes, the one place where anything is rounded."""
        if key is None:
            # In numpy encoding makes use of the values' memory.
            kept = values if COMPILED else values.copy()
            overflowed, nonfinite = encode(kept, dtype, raw, scratch=self._scratch)
        else:
            words = self._words[: len(values)]
            fill_words(key, start, words)
            overflowed = stochastic(values, dtype, words, raw)
            nonfinite = len(values) - int(np.count_nonzero(np.isfinite(values)))
        found.overflowed += overflowed
        found.nonfinite += nonfinite

    def _read(
        self, node: Ready, base: Node | None, start: int, values: Values, kept: Values | None
    ) -> Span | None:
        """Fill a span, and give that of the base, where it is stored, without reading it twice."""
        count = len(values)
        if not isinstance(base, Stored) or kept is None:
            self._evaluator.read(node, start, values)
            return None
        if not isinstance(node, Function):
            origin = self._evaluator.stored(base, start, count, kept.view(np.uint8))
            self._evaluator.read(node, start, values, (base, origin))
            return origin
        node.inputs.watch(start, start + count, kept)
        self._evaluator.read(node, start, values)
        held = node.inputs.watched()
        return held or self._evaluator.stored(base, start, count, kept.view(np.uint8))

    def _judge(self, tensor: OutputTensor, found: Findings) -> None:
        """Refuse values that no model should have."""
        if found.nonfinite and not self._allow_nonfinite:
            raise self._nonfinite(tensor, found.nonfinite)
        if found.overflowed:
            raise OutputError(
                f"tensor '{tensor.spec.name}': {found.overflowed} values are too large for "
                f"{tensor.spec.dtype.value}",
                fix="choose a wider output: dtype",
            )

    def _nonfinite(self, tensor: OutputTensor, count: int) -> CheckpointError:
        """Tells which inputs the NaNs and infinities of a tensor come from."""
        where = f"tensor '{tensor.spec.name}'"
        if told := self._evaluator.nonfinite_in(tensor.node):
            fix = "mend the model, or go on as it is with --allow-nonfinite"
            return CheckpointError(told, where=where, fix=fix)
        return CheckpointError(
            f"{count} values became infinite or NaN in float64, though all inputs are finite",
            where=where,
            fix="look at the parameters' magnitudes",
        )
