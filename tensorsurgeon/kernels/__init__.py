"""Arithmetic on spans: rounding to and from stored dtypes, sums, dot products."""

from tensorsurgeon.kernels.convert import decode, encode
from tensorsurgeon.kernels.products import dot
from tensorsurgeon.kernels.scratch import Scratch, Values

__all__ = ["Scratch", "Values", "decode", "dot", "encode"]
