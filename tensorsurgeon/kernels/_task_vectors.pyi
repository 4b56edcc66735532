from typing_extensions import Buffer

def tally(
    base: Buffer, base_dtype: int, model: Buffer, dtype: int, upper: int, counts: Buffer, /
) -> None: ...
def combine(
    base: Buffer,
    dtype: int,
    parts: tuple[tuple[object, ...], ...],
    elect: bool,
    normalize: bool,
    divisor: float,
    factor: float,
    out: Buffer,
    /,
) -> list[tuple[int, int]]: ...
def mass(
    base: Buffer, base_dtype: int, model: Buffer, dtype: int, cut: tuple[object, ...], /
) -> tuple[float, float, int, int]: ...
def row_limits(
    base: Buffer, base_dtype: int, model: Buffer, dtype: int, table: Buffer, out: Buffer, /
) -> None: ...
def lost(
    base: Buffer, base_dtype: int, values: Buffer, written: Buffer, dtype: int, /
) -> tuple[float, float]: ...
def stochastic(values: Buffer, dtype: int, words: Buffer, raw: Buffer, /) -> int: ...
