"""What a file of metrics can say: the form of each event, and reading a file of them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tensorsurgeon.checkpoint.strict_json import StrictJSONError, parse_object
from tensorsurgeon.errors import DataError, shortened
from tensorsurgeon.trainer.report.markup import shown

Text = Annotated[str, AfterValidator(shown)]
"""A text as it is shown: nothing invisible in it, and not endless."""

Count = Annotated[int, Field(ge=0, le=2**53)]
Number = Annotated[float, Field(ge=-1e30, le=1e30)]
Measured = Number | None
"""A number that can fail to be finite."""


class _Form(BaseModel):
    # Keys that are not known are a later version's, and nothing that this one shows.
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class LayerForm(_Form):
    """Where a layer came from, and what became of it."""

    sources: tuple[tuple[Text, Count], ...]
    new: bool
    seam: bool


class RunEvent(_Form):
    """A run begins, or goes on after the step `resumed_at`.

    Attributes:
        training: tells it from runs that it could not go on from.
    """

    event: Literal["run"]
    stage: Text
    name: Text
    parameters: Count
    trainable: Count
    layers: tuple[LayerForm, ...]
    steps: Count
    tokens_per_step: Count
    sequence_length: Count
    world_size: Count
    device: Text
    precision: Text = ""
    peak_flops: Measured = None
    versions: Mapping[Text, Text] = {}
    resumed_at: Count | None = None
    training: Text = ""
    at: Text = ""


class BaselineEvent(_Form):
    """The loss of another model on held-out data.

    Attributes:
        tokens: valid ones that it is a mean over.
        data: tells the data and how much of it from others; likewise below.
        model: tells the model from others.
    """

    event: Literal["baseline"]
    name: Text
    loss: Measured
    tokens: Count
    data: Text = ""
    model: Text = ""


class StepEvent(_Form):
    """A step of the optimiser, or one that was left out.

    Attributes:
        tokens: positions of all samples until then, padding included.
        valid: labels of this step, of which the loss is a mean.
        pairs: the same of preferences.
    """

    event: Literal["step"]
    step: Count
    loss: Measured
    learning_rate: Measured
    gradient_norm: Measured
    tokens: Count
    valid: Count | None = None
    pairs: Count | None = None
    tokens_per_second: Measured
    mfu: Measured = None
    memory: Count | None = None
    seconds: Number
    skipped: Literal["not finite", "spike"] | None = None
    margin: Measured = None
    accuracy: Measured = None


class EvaluationEvent(_Form):
    """The loss on held-out data after a step; 0 is before the first.

    Attributes:
        tokens: valid ones that it is a mean over.
        pairs: the same of preferences.
    """

    event: Literal["evaluation"]
    step: Count
    loss: Measured
    tokens: Count | None = None
    pairs: Count | None = None
    data: Text = ""
    margin: Measured = None
    accuracy: Measured = None


class LayersEvent(_Form):
    """Each layer's gradient norm at a step, and how far it is from where it began."""

    event: Literal["layers"]
    step: Count
    gradient_norms: tuple[Measured, ...]
    moved: tuple[Measured, ...]


class SeamForm(_Form):
    """How like the input that a layer is accustomed to the one is that it gets."""

    layer: Count
    original: tuple[Text, Count]
    cosine: Measured
    norm_ratio: Measured


class SeamsEvent(_Form):
    """All seams at a step."""

    event: Literal["seams"]
    step: Count
    seams: tuple[SeamForm, ...]
    data: Text = ""


class SavedEvent(_Form):
    """A training checkpoint is complete."""

    event: Literal["saved"]
    step: Count
    seconds: Number
    bytes: Count


class EndEvent(_Form):
    """A run is over, or was told to stop."""

    event: Literal["end"]
    step: Count
    reason: Text


Event = (
    RunEvent
    | BaselineEvent
    | StepEvent
    | EvaluationEvent
    | LayersEvent
    | SeamsEvent
    | SavedEvent
    | EndEvent
)
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a file of metrics, as it was written and of a form that is known.

    Raises:
        DataError: it is not there, or a line is damaged; says which.
    """
    return [value for value, _ in _read(path)]


def read_events(path: Path) -> list[Event]:
    """As `read_metrics`, as values; texts in them are fit to be shown."""
    return [event for _, event in _read(path)]


def _read(path: Path) -> Iterator[tuple[dict[str, Any], Event]]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        what = "there are no metrics here"
        raise DataError(
            what, where=str(path), fix="name a file that a training has written"
        ) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from None
    depth: int | None = None
    for number, line in enumerate(whole_lines(data), 1):
        try:
            value = parse_object(line)
            event = _EVENT.validate_json(line)
            if isinstance(event, RunEvent):
                depth = len(event.layers)
            _check_layers(event, depth)
        except (StrictJSONError, ValueError) as error:
            raise DataError(
                _reason(error),
                where=f"{path}:{number}",
                fix="remove this line; the others can be read without it",
            ) from None
        yield value, event


def _reason(error: ValueError) -> str:
    """What is wrong with a line, in words."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"][1:])
    if first["type"] == "union_tag_not_found":
        return "has no 'event'"
    if first["type"] == "union_tag_invalid":
        return f"'{shortened(str(first['ctx']['tag']))}' is not an event that is known"
    if first["type"] == "missing":
        return f"the event '{first['loc'][0]}' lacks '{place}'"
    message = first["msg"].replace("Input should be", "must be")
    return f"{place}: {message[:1].lower()}{message[1:]}"


def _check_layers(event: Event, depth: int | None) -> None:
    """Refuse numbers of layers that the run has not."""
    if not isinstance(event, LayersEvent | SeamsEvent):
        return
    if depth is None:
        raise ValueError("comes before the run that it is of")
    if isinstance(event, LayersEvent):
        for key, values in (("gradient_norms", event.gradient_norms), ("moved", event.moved)):
            if len(values) != depth:
                raise ValueError(f"{key}: {len(values)} layers, but the run has {depth}")
    else:
        for seam in event.seams:
            if seam.layer >= depth:
                raise ValueError(f"a seam at layer {seam.layer}, but the run has {depth} layers")


def whole_lines(data: bytes) -> list[bytes]:
    """The lines of a file without their ends; what follows the last end is torn, and no line."""
    return data.split(b"\n")[:-1]
