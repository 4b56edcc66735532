"""A second opinion: mergekit, in an environment of its own, on the same tokenizers."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer

from tensorsurgeon.vocabulary import ZERO, Joined, TokenOf, TokenRule, join, read_vocabulary
from tests.vocabulary.makers import (
    END,
    FOREST,
    PAD,
    SEA,
    bpe,
    files_of,
    lay_down,
    unigram,
    with_added,
    word_piece,
    written,
)

SCRIPT = Path(__file__).with_name("with_mergekit.py")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def tokenizers() -> dict[str, dict[str, bytes]]:
    """Small tokenizers' files by name."""
    tool = AddedToken("<tool>", lstrip=True, normalized=False)
    made: dict[str, Tokenizer] = {
        "sea": bpe(SEA),
        "forest": with_added(bpe(FOREST), PAD, tool),
        "both": with_added(bpe(FOREST + SEA, 340), "<a>", "ship", PAD),
        "pieces": word_piece(SEA),
        "more pieces": word_piece(FOREST),
        "likely": unigram(SEA),
        "likelier": unigram(FOREST),
    }
    return {name: files_of(tokenizer) for name, tokenizer in made.items()}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A way to join; `source` is None for a union, and a name for a model's own tokens."""

    models: tuple[str, ...]
    base: str | None = None
    source: str | None = None
    rules: Mapping[str, TokenRule] = field(default_factory=dict)
    pad: int = 1


THREE = ("sea", "forest", "both")
CASES = {
    "union": Case(models=THREE, base="sea"),
    "union with the base last": Case(models=THREE, base="both"),
    "union without a base": Case(models=THREE),
    "base": Case(models=THREE, base="forest", source="forest"),
    "a model's": Case(models=THREE, base="sea", source="both"),
    "padded": Case(models=THREE, base="sea", pad=64),
    "one model": Case(models=("forest",), base="forest"),
    "rules": Case(
        models=THREE,
        base="sea",
        rules={
            "<tool>": TokenRule(source=TokenOf(model="both", token="<a>")),
            PAD: TokenRule(source=TokenOf(model="forest", token=7)),
            "<a>": TokenRule(source=ZERO),
            "a": TokenRule(source=TokenOf(model="both"), force=True),
            END: TokenRule(source=ZERO, force=True),
        },
    ),
    "tokens that the base has not": Case(
        models=THREE,
        base="sea",
        source="sea",
        rules={
            "<tool>": TokenRule(source=TokenOf(model="forest")),
            "<a>": TokenRule(source=TokenOf(model="both"), force=True),
        },
    ),
    "WordPiece": Case(models=("pieces", "more pieces"), base="pieces"),
    "Unigram": Case(models=("likely", "likelier"), base="likelier"),
    "real": Case(models=("smollm2", "smollm2 with more"), base="smollm2"),
    "real, base": Case(
        models=("smollm2", "smollm2 with more"), base="smollm2 with more", source="smollm2"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The models' folders and the number of rows of each, and what mergekit made of every case."""

    folders: dict[str, Path]
    rows: dict[str, int]
    theirs: dict[str, Any]

    def ours(self, case: Case) -> Joined:
        vocabularies = {}
        for name in case.models:
            folder = self.folders[name]
            files = {file.name: file.read_bytes() for file in folder.iterdir()}
            del files["config.json"]
            vocabularies[name] = read_vocabulary(files, folder=str(folder), rows=self.rows[name])
        return join(
            vocabularies,
            base=case.base,
            donor=case.source,
            rules=case.rules,
            pad_to_multiple_of=case.pad,
        )


@pytest.fixture(scope="module")
def setting(
    smollm2: Path, mergekit_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Setting:
    place = tmp_path_factory.mktemp("peer")
    real = {name: (smollm2 / name).read_bytes() for name in TOKENIZER_FILES}
    more = Tokenizer.from_str(real["tokenizer.json"].decode())
    more.add_special_tokens(["<|tool|>", "<|think|>"])
    more.add_tokens(["SmolLM2", "merging"])
    every = tokenizers() | {
        "smollm2": real,
        "smollm2 with more": {**real, "tokenizer.json": more.to_str().encode()},
    }
    rows, folders = {}, {}
    for name, files in every.items():
        tokens = Tokenizer.from_str(files["tokenizer.json"].decode()).get_vocab_size()
        rows[name] = -(-tokens // 8) * 8
        folders[name] = lay_down(place / name.replace(" ", "_"), files)
        config: dict[str, Any] = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
        config["vocab_size"] = rows[name]
        (folders[name] / "config.json").write_text(json.dumps(config))
    cases = {name: as_mergekit(case, folders, rows) for name, case in CASES.items()}
    asked, answered = place / "cases.json", place / "results.json"
    asked.write_text(json.dumps(cases))
    command = [mergekit_python, SCRIPT, asked, answered]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Setting(folders=folders, rows=rows, theirs=json.loads(answered.read_bytes()))


def as_mergekit(case: Case, folders: Mapping[str, Path], rows: Mapping[str, int]) -> dict[str, Any]:
    return {
        "models": [str(folders[name]) for name in case.models],
        "rows": [rows[name] for name in case.models],
        "base": case.base and str(folders[case.base]),
        "source": "union" if case.source is None else str(folders[case.source]),
        "tokens": {token: rule_of(rule, folders) for token, rule in case.rules.items()},
        "pad": case.pad if case.pad > 1 else None,
        "text": FOREST,
    }


def rule_of(rule: TokenRule, folders: Mapping[str, Path]) -> dict[str, Any]:
    source: Any = {"kind": "zero"}
    if isinstance(rule.source, TokenOf):
        source, token = str(folders[rule.source.model]), rule.source.token
        if token is not None:
            key = "token_id" if isinstance(token, int) else "token"
            source = {"kind": "model_token", "model": source, key: token}
    return {"source": source, "force": rule.force}


def embedding(joined: Joined, model: str, models: tuple[str, ...]) -> list[list[float]]:
    """The embedding that a map makes of those that `with_mergekit` gives to mergekit."""
    made = []
    for run in joined.maps[model].runs:
        for step in range(run.stop - run.start):
            row = [0.0] * (2 * len(models))
            for source in run.sources:
                number = models.index(source.model)
                row[number] += 1 / len(run.sources)
                row[len(models) + number] += (source.row + step) / len(run.sources)
            made.append(row)
    return made


@pytest.mark.parametrize("name", CASES)
def test_every_token_has_the_row_that_mergekit_gives_it(name: str, setting: Setting) -> None:
    case, theirs = CASES[name], setting.theirs[name]
    joined = setting.ours(case)
    ids = joined.vocabulary.ids
    assert set(ids) == set(theirs["ids"])
    for number, model in enumerate(case.models):
        here, there = embedding(joined, model, case.models), theirs["embeddings"][number]
        for token, row in ids.items():
            assert here[row] == pytest.approx(there[theirs["ids"][token]]), (model, token)


@pytest.mark.parametrize("name", CASES)
def test_ids_are_those_of_mergekit_as_far_as_it_has_an_order(name: str, setting: Setting) -> None:
    """What it appends in a union comes in the order of a hash table, new in each process."""
    case, theirs = CASES[name], setting.theirs[name]["ids"]
    joined = setting.ours(case)
    kept = setting.ours(Case(models=(joined.ground,))).vocabulary.ids
    assert {token: theirs[token] for token in kept} == kept
    assert kept.items() <= joined.vocabulary.ids.items()
    assert {*theirs.values()} == {*joined.vocabulary.ids.values()}
    if case.source is not None and not case.rules:
        assert theirs == joined.vocabulary.ids


def test_padding_is_zero_here_and_the_mean_of_all_rows_there(setting: Setting) -> None:
    joined = setting.ours(CASES["padded"])
    tokens, rows = joined.vocabulary.end, joined.vocabulary.rows
    theirs = setting.theirs["padded"]["embeddings"][0]
    ours = embedding(joined, "sea", THREE)
    assert tokens < rows == len(ours) == len(theirs)
    assert not any(map(any, ours[tokens:]))
    assert all(map(any, theirs[tokens:]))


def test_tokens_of_the_others_come_of_texts_here_and_never_there(setting: Setting) -> None:
    """It adds them as strings to be looked for in a text, where no byte alphabet is spelled."""
    joined = setting.ours(CASES["union"])
    folder = setting.folders["sea"]
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    known = bpe(SEA).get_vocab().keys()
    spaced = {token for token in joined.vocabulary.ids if token[0] == "Ġ"} - known
    assert {*written(joined, files).encode(FOREST).tokens} & spaced
    assert not {*setting.theirs["union"]["split"]} & spaced
