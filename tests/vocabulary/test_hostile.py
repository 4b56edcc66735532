"""Tokenizer files of strangers: whatever is in them, one error that names the file."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorsurgeon.errors import ArchitectureError, CheckpointError
from tensorsurgeon.vocabulary import TOKENIZER_LIMIT, Vocabulary, join, tokenizer_files
from tests.hostile.strategies import as_json, changed, changes, values
from tests.vocabulary.makers import KINDS, SEA, bpe, files_of, loaded, vocabulary_of, with_added

TOKENIZER = "tokenizer.json"

Document = dict[str, Any]
Change = Callable[[Document], object]


def document_of(kind: str) -> Document:
    made: Document = json.loads(files_of(with_added(KINDS[kind](SEA), "<b>"))[TOKENIZER])
    return made


def refused(files: dict[str, bytes], rows: int = 1000) -> str:
    """The one line that tells why files are refused, without the fix."""
    with pytest.raises(CheckpointError) as caught:
        vocabulary_of(files, rows)
    (problem,) = caught.value.problems
    assert str(caught.value).isprintable() or problem.fix
    assert len(str(caught.value)) < 1000
    return f"{problem.where}: {problem.what}"


def put(*path: str | int) -> Callable[[Any], Change]:
    """Puts a value at a place of a document."""

    def to(value: Any) -> Change:
        def change(document: Document) -> None:
            here: Any = document
            for step in path[:-1]:
                here = here[step]
            here[path[-1]] = value

        return change

    return to


VOCAB = ("model", "vocab")
ADDED = ("added_tokens", 1)
MERGE = put("model", "merges", 0)


@pytest.mark.parametrize(
    ("kind", "change", "problem"),
    [
        ("BPE", put("model")(None), "has no object 'model'"),
        ("BPE", put("model", "type")("Bytes"), "a model of type 'Bytes'"),
        ("BPE", put("model", "type")(["BPE"]), "a model of type ['BPE']"),
        ("BPE", put(*VOCAB)([]), "has no vocabulary, an object of tokens and ids"),
        ("BPE", put(*VOCAB, "a")(-1), "token 'a' has id -1"),
        ("BPE", put(*VOCAB, "a")(1.0), "token 'a' has id 1.0"),
        ("BPE", put(*VOCAB, "a")("1"), "token 'a' has id '1'"),
        ("BPE", put(*VOCAB, "a")(True), "token 'a' has id True"),
        ("BPE", put(*VOCAB, "a")(None), "token 'a' has id None"),
        ("BPE", put(*VOCAB, "new")(5), "tokens '%' and 'new' have one id, 5"),
        ("WordLevel", put(*VOCAB, "\x1b[2J")(0), "have one id, 0"),
        ("BPE", put("model", "merges")(None), "has no list of merges"),
        ("BPE", MERGE("ab"), "merge 0 is 'ab', not two tokens"),
        ("BPE", MERGE("a b c"), "merge 0 is 'a b c', not two tokens"),
        ("BPE", MERGE(["a", 7]), "merge 0 is ['a', 7], not two tokens"),
        ("BPE", MERGE(["q", "q"]), "merge 0, ['q', 'q'], needs 'qq', which is no token"),
        ("BPE", MERGE(["重", "q"]), "merge 0, ['重', 'q'], needs '重', which is no token"),
        ("Unigram", put(*VOCAB)({}), "has no vocabulary, a list of tokens and scores"),
        ("Unigram", put(*VOCAB)([]), "has no vocabulary, a list of tokens and scores"),
        ("Unigram", put(*VOCAB, 3)([7, 0.0]), "[7, 0.0] at id 3 is no token with a score"),
        ("Unigram", put(*VOCAB, 3)(["a", "b"]), "['a', 'b'] at id 3 is no token with a score"),
        ("Unigram", put(*VOCAB, 3)(["a", True]), "['a', True] at id 3 is no token with a score"),
        ("Unigram", put(*VOCAB, 3)(["a"]), "['a'] at id 3 is no token with a score"),
        ("Unigram", put(*VOCAB, 3)(["</s>", 0]), "token '</s>' has a second id, 3"),
        ("Unigram", put("model", "unk_id")(500), "'unk_id' is 500, and there are 39 tokens"),
        (
            "Unigram",
            put("model", "unk_id")("<unk>"),
            "'unk_id' is '<unk>', and there are 39 tokens",
        ),
        ("BPE", put("added_tokens")({}), "'added_tokens' is not a list"),
        ("BPE", put(*ADDED)("<b>"), "'<b>' is no added token, an object with 'content'"),
        ("BPE", put(*ADDED, "content")(7), "'content': 7"),
        ("BPE", put(*ADDED, "content")(""), "is no added token, an object with 'content'"),
        ("BPE", put(*ADDED, "id")(-1), "token '<b>' has id -1"),
        ("BPE", put(*ADDED, "id")(None), "token '<b>' has id None"),
        ("BPE", put(*ADDED, "id")(7), "token '<b>' has id 7, and 300 once it is loaded"),
        ("BPE", put(*ADDED, "id")(10**9), "token '<b>' has id 1000000000, and 300 once it is"),
        ("BPE", put(*ADDED, "special")(1), "token '<b>': 'special' is 1, not true or false"),
        ("BPE", put(*VOCAB, "new")(301), "tokens '<b>' has id 300, and 301 once it is loaded"),
        ("BPE", put("normalizer")("NFC"), "'normalizer' is not an object with a type"),
        ("BPE", put("decoder")({"type": "Sequence"}), "'decoder' is a sequence of nothing"),
        (
            "BPE",
            put("pre_tokenizer")({"type": "Sequence", "pretokenizers": [None]}),
            "'pre_tokenizer' has a step that is null",
        ),
        ("BPE", put("deep")(json.loads("[" * 60 + "]" * 60)), "nested too deeply"),
    ],
)
def test_tokenizer_that_breaks_a_rule_is_refused(kind: str, change: Change, problem: str) -> None:
    document = document_of(kind)
    change(document)
    message = refused({TOKENIZER: json.dumps(document).encode()})
    assert message.startswith(f"model/{TOKENIZER}: ")
    assert problem.removeprefix("tokens ") in message


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not JSON: "),
        (b"[]", "a JSON list where an object is expected"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b"\xef\xbb\xbf{}", "not JSON: a byte order mark before it"),
        (b'{"model": {"vocab": {"a": 0, "a": 1}}}', "duplicate key 'a'"),
        (b'{"model": {"vocab": {"\\ud800": 0}}}', "a lone surrogate in a string"),
        (b'{"model": {"vocab": [["a", NaN]]}}', "NaN is not JSON"),
        (b'{"model": {"vocab": [["a", 1e999]]}}', "1e999 is too large a number"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": [' + b"0," * 5_000_000 + b"0]}", "more than 5000000 values"),
        (b"{" + b" " * TOKENIZER_LIMIT + b"}", "is larger than 100 MB"),
    ],
)
@pytest.mark.parametrize("name", [TOKENIZER, "tokenizer_config.json", "added_tokens.json"])
def test_file_that_is_no_json_is_refused(data: bytes, problem: str, name: str) -> None:
    message = refused({**files_of(bpe(SEA)), name: data})
    assert message.startswith(f"model/{name}: {problem}")


def test_token_without_a_row_is_refused() -> None:
    files = files_of(with_added(bpe(SEA), "<b>", "<c>"))
    vocabulary_of(files, rows=302)
    assert refused(files, rows=301) == (
        "model/tokenizer.json: token '<c>' of the tokenizer has id 301, and the embedding has "
        "301 rows"
    )
    assert refused(files, rows=200).endswith("has 200 rows (102 such tokens)")
    beside = {"added_tokens.json": b'{"<d>": 302}', "tokenizer_config.json": b"{}"}
    assert refused({**files, **beside}, rows=302).startswith("model/added_tokens.json: token '<d>'")


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"added_tokens_decoder": []}, "'added_tokens_decoder' is not an object"),
        ({"added_tokens_decoder": {"x": {"content": "<b>"}}}, "token '<b>' has id 'x'"),
        ({"added_tokens_decoder": {"-1": {"content": "<b>"}}}, "token '<b>' has id '-1'"),
        ({"added_tokens_decoder": {"٣": {"content": "<b>"}}}, "token '<b>' has id '٣'"),
        ({"added_tokens_decoder": {"9" * 999: {"content": "<b>"}}}, "token '<b>' has id '999"),
        (
            {"added_tokens_decoder": {"301": {"content": "<b>"}}},
            "token '<b>' has id 301, and 300 once it is loaded",
        ),
        ({"pad_token": "<pad>"}, "'pad_token' has '<pad>', which is no token"),
        ({"pad_token": {"lstrip": True}}, "'pad_token' is {'lstrip': True}, no token"),
        ({"extra_special_tokens": ["<x>"]}, "'extra_special_tokens' has '<x>', which is no token"),
        ({"extra_special_tokens": [[]]}, "'extra_special_tokens' is [], no token"),
    ],
)
def test_settings_that_contradict_the_tokenizer_are_refused(config: Any, problem: str) -> None:
    files = {**files_of(bpe(SEA)), "tokenizer_config.json": json.dumps(config).encode()}
    assert refused(files).startswith(f"model/tokenizer_config.json: {problem}")


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_any_value_anywhere_is_read_or_refused(kind: str, data: st.DataObject) -> None:
    """What is read can be joined and written, and what is written has the same tokens."""
    document = SMALL[kind]
    path = data.draw(st.sampled_from(PLACES[kind]))
    document = json.loads(json.dumps(document))
    put(*path)(data.draw(values))(document)
    files = {TOKENIZER: as_json(document)}
    found = read_or_refused(files)
    if found is None:
        return
    try:
        joined = join({"a": found, "b": vocabulary_of(SOUND[kind])})
    except ArchitectureError:
        return
    made = tokenizer_files(joined, files)
    assert vocabulary_of(made).ids == joined.vocabulary.ids


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(KINDS)), changes)
def test_any_bytes_are_read_or_refused(kind: str, steps: Any) -> None:
    read_or_refused({TOKENIZER: changed(json.dumps(SMALL[kind]).encode(), steps)})


def read_or_refused(files: dict[str, bytes]) -> Vocabulary | None:
    """The vocabulary of files; None where they were refused as they should be."""
    refusal = ""
    try:
        return vocabulary_of(files)
    except CheckpointError as error:
        refusal = str(error)
    assert refusal.startswith(f"model/{TOKENIZER}: ")
    return None


SOUND = {kind: files_of(make("a b ab c")) for kind, make in KINDS.items() if kind != "BPE"}
SOUND["BPE"] = files_of(bpe("a b ab c", 260))
SMALL = {kind: json.loads(files[TOKENIZER]) for kind, files in SOUND.items()}


def places(value: Any, before: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in a document, but for the many tokens that are alike."""
    if isinstance(value, dict):
        inner = list(value.items())[:8]
    else:
        inner = list(enumerate(value))[:3] if isinstance(value, list) else []
    found = [before] if before else []
    for step, part in inner:
        found += places(part, (*before, step))
    return found


PLACES = {kind: places(document) for kind, document in SMALL.items()}


def test_sound_files_are_loaded_by_the_library() -> None:
    for files in SOUND.values():
        assert loaded(files).get_vocab() == vocabulary_of(files).ids
