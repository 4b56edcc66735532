"""Tensors that are computed: evaluated span by span, rounded once, and written."""

from collections.abc import Callable, Sequence

import numpy as np

from tensorsurgeon.checkpoint import Reader
from tensorsurgeon.errors import OutputError
from tensorsurgeon.execute.evaluate import Evaluator, spans
from tensorsurgeon.execute.staging import TensorWriter
from tensorsurgeon.kernels import Scratch, encode
from tensorsurgeon.plan import OutputTensor


class Computer:
    """Computes tensors for one thread.

    Args:
        reader: has the sources' files open.
        writer: this thread's way to the output.
        buffers: how many span buffers the tensors need at most.
        step: told the number of bytes after each read; may raise to stop the run.
        note: told what an operator has to say of its coefficients.
    """

    def __init__(
        self,
        reader: Reader,
        writer: TensorWriter,
        buffers: int,
        step: Callable[[int], None],
        note: Callable[[str], None],
    ) -> None:
        self._scratch = Scratch(buffers)
        self._evaluator = Evaluator(reader, self._scratch, step, note)
        self._writer = writer

    def compute(self, batch: Sequence[OutputTensor]) -> str:
        """Make a tensor and write it wherever it goes; returns its SHA-256.

        Args:
            batch: the tensor, under each of its names; see `plan.batches`.

        Raises:
            CheckpointError: the inputs' dot products are not finite.
            OutputError: a finite value is too large for the tensor's dtype.
        """
        tensor, scratch = batch[0], self._scratch
        spec = tensor.spec
        size = spec.dtype.bits // 8
        self._writer.start([(t.shard, t.offset) for t in batch])
        lost = 0
        with np.errstate(all="ignore"):
            node = self._evaluator.prepare(tensor.node, spec)
            buffer = scratch.take()
            for start, stop in spans(spec.elements):
                values = buffer[: stop - start]
                self._evaluator.read(node, start, values)
                raw = np.frombuffer(self._writer.reserve(len(values) * size), np.uint8)
                lost += encode(values, spec.dtype, raw, scratch=scratch)
            scratch.give_back()
        digest = self._writer.finish()
        if lost:
            raise OutputError(
                f"tensor '{spec.name}': {lost} values are too large for {spec.dtype.value}",
                fix="choose a wider output: dtype",
            )
        return digest
