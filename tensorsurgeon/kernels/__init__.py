"""Arithmetic on spans: rounding to and from stored dtypes, sums, dot products."""

from tensorsurgeon.kernels.arithmetic import COMPILED, dot, encode, scale
from tensorsurgeon.kernels.scratch import Raw, Scratch, Values

__all__ = ["COMPILED", "Raw", "Scratch", "Values", "dot", "encode", "scale"]
