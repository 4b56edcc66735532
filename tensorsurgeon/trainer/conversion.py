"""Which stored tensors each tensor of a model is made of: transformers' own conversion, followed.

On loading, transformers renames, stacks and concatenates what a checkpoint stores: of Mixtral, the
matrices of all experts become one parameter. What it does is not told here again: its conversions
are run on tensors without values that know which stored elements they are, so that each rank can
read its own slice alone, and what was trained goes back into the tensors it came from.
"""

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tensorsurgeon.checkpoint import Checkpoint
from tensorsurgeon.errors import ArchitectureError, MissingTensorError, Problem, shortened
from tensorsurgeon.specs import StoredTensor

Indices = tuple[int, ...]

_SHOWN = 5
"""Names listed where many are wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A box of a stored tensor that is a box of one of the model's, element for element.

    Both boxes have the same sizes in the same order but for those of 1, which stacking adds.

    Attributes:
        stored: the tensor of the checkpoint.
        start: where the box begins in it, by dimension.
        size: of the box there.
        at: where the box begins in the model's tensor.
        shape: of the box there.
    """

    stored: StoredTensor
    start: Indices
    size: Indices
    at: Indices
    shape: Indices

    @classmethod
    def whole(cls, stored: StoredTensor) -> "Piece":
        """A tensor that is stored as it is in the model."""
        shape = stored.spec.shape
        none = (0,) * len(shape)
        return cls(stored=stored, start=none, size=shape, at=none, shape=shape)

    @property
    def elements(self) -> int:
        """How many it has."""
        return math.prod(self.size)

    def of_stored(self, tensor: Tensor) -> Tensor:
        """The box within a tensor of the stored one's shape, a view."""
        return tensor[_slices(self.start, self.size)]

    def of_model(self, tensor: Tensor) -> Tensor:
        """The box within a tensor of the model's shape, a view."""
        return tensor[_slices(self.at, self.shape)]

    def within(self, dim: int, start: int, stop: int) -> "Piece | None":
        """What of it is between two indices of the model's tensor; its place counts from `start`.

        Args:
            dim: of the model's tensor, as are the indices.
            start: the first index.
            stop: the one after the last.
        """
        low, high = max(self.at[dim], start), min(self.at[dim] + self.shape[dim], stop)
        if low >= high:
            return None
        begins, size = self.start, self.size
        if self.shape[dim] > 1:  # else it is there or not
            longer = [d for d, count in enumerate(size) if count > 1]
            same = longer[sum(count > 1 for count in self.shape[:dim])]
            begins = _with(begins, same, begins[same] + low - self.at[dim])
            size = _with(size, same, high - low)
        at, shape = _with(self.at, dim, low - start), _with(self.shape, dim, high - low)
        return replace(self, start=begins, size=size, at=at, shape=shape)

    def moved(self, dim: int, by: int) -> "Piece":
        """The same, further on in the model's tensor."""
        return replace(self, at=_with(self.at, dim, self.at[dim] + by))

    def stacked(self, dim: int, index: int) -> "Piece":
        """The same in a tensor that has one dimension more, at an index of that."""
        at = (*self.at[:dim], index, *self.at[dim:])
        return replace(self, at=at, shape=(*self.shape[:dim], 1, *self.shape[dim:]))


Form = tuple[Piece, ...]
"""What a tensor of a model is made of: boxes of stored tensors that fill it, each place once."""


def _with(values: Indices, dim: int, value: int) -> Indices:
    return (*values[:dim], value, *values[dim + 1 :])


def _slices(start: Indices, size: Indices) -> tuple[slice, ...]:
    return tuple(slice(first, first + count) for first, count in zip(start, size, strict=True))


class NotFollowedError(Exception):
    """Something was done to tensors that no boxes tell of; says what."""


class Followed(Tensor):
    """A tensor without values that knows the stored boxes it is made of.

    torch's stack, cat, chunk and split of such tensors give such; whatever else makes a tensor of
    one raises NotFollowedError.
    """

    form: Form

    @classmethod
    def of(cls, plain: Tensor, form: Iterable[Piece]) -> "Followed":
        """One on the meta device, of the shape of `plain`."""
        followed = plain.as_subclass(cls)
        followed.form = tuple(form)
        return followed

    @classmethod
    def stored(cls, stored: StoredTensor) -> "Followed":
        """A tensor of the checkpoint."""
        return cls.of(torch.empty(stored.spec.shape, device="meta"), [Piece.whole(stored)])

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Called by torch in the place of each of its functions."""
        with torch._C.DisableTorchFunctionSubclass():
            if func in _FOLLOWED:
                return _FOLLOWED[func](func, *args, **(kwargs or {}))
            found = func(*args, **(kwargs or {}))
        if any(isinstance(value, Tensor) for value in _inside(found)):
            raise NotFollowedError(getattr(func, "__name__", str(func)))
        return found


def _inside(found: Any) -> Sequence[Any]:
    return found if isinstance(found, list | tuple) else (found,)


def _form_of(tensor: Tensor) -> Form:
    if not isinstance(tensor, Followed):
        raise NotFollowedError("values that are not stored")
    return tensor.form


def _stack(func: Any, tensors: Sequence[Tensor], dim: int = 0) -> Followed:
    plain = func(tensors, dim=dim)
    dim %= plain.ndim
    form = (p.stacked(dim, index) for index, one in enumerate(tensors) for p in _form_of(one))
    return Followed.of(plain, form)


def _cat(func: Any, tensors: Sequence[Tensor], dim: int = 0) -> Followed:
    plain = func(tensors, dim=dim)
    dim %= plain.ndim
    form: list[Piece] = []
    at = 0
    for one in tensors:
        form += (piece.moved(dim, at) for piece in _form_of(one))
        at += one.shape[dim]
    return Followed.of(plain, form)


def _divide(func: Any, tensor: Followed, sizes: Any, dim: int = 0) -> tuple[Followed, ...]:
    """What torch.chunk and torch.split give."""
    parts, at = [], 0
    for plain in func(tensor, sizes, dim=dim):
        here = dim % plain.ndim
        stop = at + plain.shape[here]
        inside = (piece.within(here, at, stop) for piece in tensor.form)
        parts.append(Followed.of(plain, (piece for piece in inside if piece is not None)))
        at = stop
    return tuple(parts)


def _same(_: Any, tensor: Followed) -> Followed:
    return tensor


_FOLLOWED: Mapping[Any, Callable[..., Any]] = {
    torch.stack: _stack,
    torch.cat: _cat,
    torch.chunk: _divide,
    Tensor.chunk: _divide,
    torch.split: _divide,
    Tensor.split: _divide,
    Tensor.contiguous: _same,
}


def stored_forms(
    module: Any, checkpoint: Checkpoint, tied: Mapping[str, str]
) -> tuple[dict[str, Form], tuple[str, ...]]:
    """What each tensor of a model's state is made of; all that is stored must have its place.

    Args:
        module: a model of transformers, on the meta device.
        checkpoint: its tensors.
        tied: names of parameters that are another one, by that one's name.

    Returns:
        Of each parameter, and of each persistent buffer that is stored, its form; of a tied one,
        only where it is stored beside the one it is tied to. And the names of what is stored and
        of no use to the model, by its own word.

    Raises:
        ArchitectureError: transformers does more to the tensors than to rename, stack, concatenate
            and divide them.
        MissingTensorError: tensors and config disagree; names what is missing, left over, or of
            another shape.
    """
    state = module.state_dict(keep_vars=True)
    places, left, conversions = _places(module, state, checkpoint.tensors)
    problems: list[Problem] = []
    forms: dict[str, Form] = {}
    for place in places:
        try:
            made = place.made(module, checkpoint.tensors, conversions)
        except _UnfitError as error:
            problems.append(Problem(where=str(checkpoint.path), what=str(error)))
            forms[place.target] = ()  # there, if in vain
            continue
        for name, tensor in made.items():
            if name not in state:
                left |= dict.fromkeys(place.patterns, name)
                continue
            forms[name] = tensor.form
            if tensor.shape != state[name].shape:
                shapes = f"{list(tensor.shape)}, and config.json makes it {list(state[name].shape)}"
                what = f"{place.title(name)} is {shapes}"
                problems.append(Problem(where=str(checkpoint.path), what=what))
    for name, other in tied.items():
        if other not in forms and name in forms:
            forms[other] = forms.pop(name)  # stored by this name alone
    missing, over = _unaccounted(module, state.keys() - tied.keys() - forms.keys(), left)
    for names, what in ((missing, "lacks"), (over, "has, and the model does not,")):
        if names:
            problems.append(Problem(where=str(checkpoint.path), what=f"{what} {_listed(names)}"))
    if problems:
        mismatch = MissingTensorError.of(problems[: 4 * _SHOWN])
        if "quantization_config" in checkpoint.config:
            note = "the model is quantized: make it one of floating point, and train that"
        else:
            note = "config.json and the tensors are of different models"
        mismatch.add_note(note)
        raise mismatch
    _check_complete(forms.values(), checkpoint)
    return forms, tuple(sorted(left))


class _UnfitError(Exception):
    """Why tensors do not go together."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where transformers puts some stored tensors.

    Attributes:
        target: the name in the model; where they become several tensors, of the first.
        patterns: of what is stored, in transformers' order, by name: the pattern of a conversion
            that the name matched; None without one.
    """

    target: str
    patterns: Mapping[str, str | None]

    def title(self, name: str) -> str:
        """What is made of them, for people."""
        names = list(self.patterns)
        return f"'{name}'" if names == [name] else f"'{name}', made of {_listed(names)},"

    def made(
        self, module: Any, tensors: Mapping[str, StoredTensor], conversions: Mapping[str, Any]
    ) -> dict[str, Followed]:
        """What becomes of them, by names in the model.

        Raises:
            ArchitectureError: more is done to them than can be followed.
            _UnfitError: they do not go together.
        """
        names, (first, *others) = list(self.patterns), self.patterns.values()
        used = [None if pattern is None else conversions[pattern] for pattern in (first, *others)]
        if others and (used[0] is None or any(other is not used[0] for other in used)):
            raise _UnfitError(f"{_listed(names)} would each be '{self.target}'")
        if first is None:
            return {self.target: Followed.stored(tensors[names[0]])}
        conversion = copy.deepcopy(conversions[first])
        for name, pattern in self.patterns.items():
            conversion.add_tensor(self.target, name, pattern, Followed.stored(tensors[name]))
        try:
            made = conversion.convert(self.target, model=module, config=module.config)
        except NotFollowedError:
            operations = ", ".join(type(entry).__name__ for entry in conversion.operations)
            raise ArchitectureError(
                f"{_listed(names)} cannot be trained: transformers makes '{self.target}' of it by "
                f"more than stacking and concatenating ({operations})",
                where=str(tensors[names[0]].path),
            ) from None
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            why = shortened((str(error) or type(error).__name__).splitlines()[0], 200)
            raise _UnfitError(f"{_listed(names)} do not make up '{self.target}': {why}") from None
        return {name: _inside(tensor)[0] for name, tensor in made.items()}


def _places(
    module: Any, state: Mapping[str, Tensor], tensors: Mapping[str, StoredTensor]
) -> tuple[list[_Place], dict[str, str], dict[str, Any]]:
    """Where transformers puts each stored tensor.

    Returns:
        The places; what has none, with the name it would have had; and conversions by pattern.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    mapping = get_model_conversion_mapping(module)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    prefix, known = module.base_model_prefix, dict(state)
    found: dict[str, dict[str, str | None]] = {}
    left: dict[str, str] = {}
    for name in sorted(tensors, key=dot_natural_key):
        target, pattern = rename_source_key(name, renamings, converters, prefix, known)
        if target not in state and name in state:
            target, pattern = rename_source_key(name, [], [], prefix, known)
        if target in state:
            found.setdefault(target, {})[name] = pattern
        else:
            left[name] = target
    places = [_Place(target=target, patterns=patterns) for target, patterns in found.items()]
    return (
        places,
        left,
        {pattern: entry for entry in converters for pattern in entry.source_patterns},
    )


def _unaccounted(
    module: Any, missing: Iterable[str], left: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Of what is missing and left over, that which the model itself does not excuse."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    info = SimpleNamespace(missing_keys=set(missing), unexpected_keys=set(left.values()))
    module._adjust_missing_and_unexpected_keys(info)
    # A buffer has values without being read; a parameter would be random.
    wanted = {name for name in missing if name in parameters or name in info.missing_keys}
    over = [name for name, target in left.items() if target in info.unexpected_keys]
    return sorted(wanted), sorted(over)


def _check_complete(forms: Iterable[Form], checkpoint: Checkpoint) -> None:
    """Whether every stored tensor can be put together again.

    Raises:
        ArchitectureError: transformers drops a part of one.
    """
    used: Counter[str] = Counter()
    for form in forms:
        for piece in form:
            used[piece.stored.spec.name] += piece.elements
    partly = [n for n, count in used.items() if count != checkpoint.tensors[n].spec.elements]
    if partly:
        what = f"of {_listed(sorted(partly))}, transformers uses only a part"
        raise ArchitectureError(what, where=str(checkpoint.path))


def _listed(names: Sequence[str]) -> str:
    listed = ", ".join(shortened(name) for name in names[:_SHOWN])
    return listed + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
