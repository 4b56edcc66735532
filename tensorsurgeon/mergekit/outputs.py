"""What a mergekit document says of the output's form, as the `output` of a recipe."""

from collections.abc import Iterator

from tensorsurgeon.documents import Findings, Mark
from tensorsurgeon.errors import did_you_mean
from tensorsurgeon.mergekit.building import Part, mapping, text
from tensorsurgeon.mergekit.document import Document, Token, TokenOfModel
from tensorsurgeon.mergekit.naming import Models
from tensorsurgeon.mergekit.references import ModelReference

_DTYPES = {name: name for name in ("bfloat16", "float16", "float32", "float64")}
_DTYPES |= {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp64": "float64"}

_TEMPLATES = ("alpaca", "chatml", "exaone", "llama3", "mistral")
"""The chat templates that mergekit has names for."""


def output_of(
    document: Document, donor: ModelReference, models: Models, findings: Findings
) -> dict[str, Part]:
    """The entries of `output`; what is wrong with them is reported.

    Args:
        document: the last one.
        donor: the model that gives config and tokenizer where a recipe says nothing.
        models: the recipe's.
        findings: what is wrong.
    """
    found: dict[str, Part] = {}
    dtypes = [_dtype(document, key, findings) for key in ("out_dtype", "dtype")]
    if wanted := next(filter(None, dtypes), None):
        found["dtype"] = wanted
    if vocabulary := _vocabulary(document, donor, models, findings):
        found["vocabulary"] = vocabulary
    elif document.base_model is not None and document.base_model != donor:
        found["tokenizer"] = models.reference(document.base_model)
    if template := _chat_template(document, findings):
        found["chat_template"] = template
    return found


def _dtype(document: Document, key: str, findings: Findings) -> Part | None:
    given: str | None = getattr(document, key)
    if given is None:
        return None
    mark = document.value_mark(key)
    name = _DTYPES.get(given.removeprefix("torch."))
    if name is None:
        findings.report(mark, f"{key}: '{given}' is not known", did_you_mean(given, _DTYPES))
        return None
    return text(name, mark)


def _vocabulary(
    document: Document, donor: ModelReference, models: Models, findings: Findings
) -> Part | None:
    tokenizer, mark = document.tokenizer, document.value_mark("tokenizer_source")
    source = document.tokenizer_source
    if tokenizer is not None:
        if source is not None:
            what = "'tokenizer_source' and 'tokenizer' say the same"
            findings.report(document.key_mark("tokenizer_source"), what, "keep one of them")
        source, mark = tokenizer.source, tokenizer.value_mark("source")
    if source is None:
        return None
    if source == "base":
        source = document.base_model or donor
    named = models.reference(source, mark) if isinstance(source, ModelReference) else None
    entries = {"source": named or text("union", mark)}
    if tokenizer is not None and tokenizer.tokens:
        tokens = {
            name: mapping(token.mark, dict(_token(token, document, models, findings)))
            for name, token in tokenizer.tokens.items()
        }
        entries["tokens"] = mapping(tokenizer.value_mark("tokens"), tokens)
    if tokenizer is not None and (multiple := tokenizer.pad_to_multiple_of):
        key = "pad_to_multiple_of"
        entries[key] = Part(multiple, tokenizer.value_mark(key))
    return mapping(mark, entries)


def _check_merged(model: ModelReference, document: Document, findings: Findings) -> None:
    """A row can only be taken of a model that is read."""
    merged = {str(one): None for one in document.references()}
    if str(model) not in merged:
        what = f"model '{model}' is not merged, so that no row is taken of it"
        findings.report(model.mark, what, did_you_mean(str(model), merged))


def _token(
    token: Token, document: Document, models: Models, findings: Findings
) -> Iterator[tuple[str, Part]]:
    """What is said of a token."""
    source, mark = token.source, token.value_mark("source")
    if isinstance(source, TokenOfModel):
        _check_merged(source.model, document, findings)
        key = "token" if source.token is not None else "token_id"
        wanted = Part(getattr(source, key), source.value_mark(key))
        entries = {"model": models.reference(source.model), "token": wanted}
        yield "source", mapping(mark, entries)
    elif isinstance(source, ModelReference):
        _check_merged(source, document, findings)
        yield "source", models.reference(source, mark)
    elif source is not None:
        yield "source", text(source, mark)
    if token.force:
        yield "force", Part(True, token.value_mark("force"))


def _chat_template(document: Document, findings: Findings) -> Part | None:
    """A template's name or its text."""
    given, mark = document.chat_template, document.value_mark("chat_template")
    if not given:
        return None
    if given not in (*_TEMPLATES, "auto") and (len(given) < 20 or "{" not in given):
        what = f"chat_template: '{given}' is neither a known name nor a template"
        findings.report(mark, what, did_you_mean(given, (*_TEMPLATES, "auto")))
        return None
    return text(given, mark)


def left_out(document: Document) -> Iterator[tuple[str, Mark]]:
    """Keys that only the last of several documents can have, with their places."""
    for key in ("tokenizer_source", "tokenizer", "chat_template"):
        if getattr(document, key) is not None:
            yield key, document.key_mark(key)
