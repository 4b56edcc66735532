"""The page: sound HTML of one file, whose names are shown and do nothing, whatever it is of."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tensorsurgeon.errors import DataError, OutputError
from tensorsurgeon.trainer.report import write_report
from tensorsurgeon.trainer.report.markup import shown
from tests.card.names import evil_names
from tests.trainer.report import synthetic
from tests.trainer.report.pages import Element, parsed
from tests.trainer.report.synthetic import (
    Event,
    baseline_event,
    evaluation_event,
    layers_of,
    run_event,
    step_event,
    training,
)


def page(folder: Path, *runs: Iterable[Event], title: str = "A training") -> str:
    """The report of runs."""
    files = [synthetic.write(folder / f"{i}.jsonl", run) for i, run in enumerate(runs)]
    output = folder / "report.html"
    write_report(files, output, title=title)
    return output.read_text()


def control(steps: int = 200) -> Iterable[Event]:
    return training(steps=steps, depth=4, seams=0, seed=1, lost=0, gain=0.09, name="control")


KINDS: dict[str, list[Iterable[Event]]] = {
    "run and control": [training(steps=200, depth=12, resumed=120), control()],
    "new layers": [training(steps=60, depth=8, new=4, lost=0)],
    "shorter control": [training(steps=60, depth=3), control(30)],
    "many seams and controls": [
        training(steps=60, depth=40, seams=19),
        *(control(20) for _ in range(8)),
    ],
    "one layer": [training(steps=50, depth=1, seams=0, end=None)],
    "one step": [[run_event(10, 2), step_event(1)]],
    "no step": [[run_event(10, 2)]],
    "no layers": [[run_event(10), *(step_event(i) for i in range(1, 9))]],
    "one evaluation": [[run_event(10), evaluation_event(0, 3.0), baseline_event()]],
    "run and control that have just begun": [[run_event(10, 2)], [run_event(10)]],
    "preferences measured on pairs": [
        [
            run_event(9, stage="dpo"),
            step_event(1, valid=None, pairs=4),
            *({"event": "evaluation", "step": n, "loss": 0.7, "pairs": 12} for n in (0, 1)),
        ]
    ],
    "nothing finite": [[run_event(9), step_event(1, None, gradient_norm=None, mfu=None)]],
    "preferences": [
        [
            run_event(50, 2, stage="dpo", peak_flops=None),
            *(step_event(i, 0.7 - i / 99, mfu=None, margin=i / 9, accuracy=0.6) for i in range(50)),
            evaluation_event(50, 0.5, margin=1.0, accuracy=0.7),
        ]
    ],
    "a frozen layer": [
        [
            run_event(9, layers=layers_of(3)),
            *(
                {"event": "layers", "step": n, "gradient_norms": [None, 1, n], "moved": [0, n, 2]}
                for n in (1, 2)
            ),
        ]
    ],
}


@pytest.fixture(scope="module", params=KINDS)
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Element:
    """Reports of all kinds of runs."""
    return parsed(page(tmp_path_factory.mktemp("report"), *KINDS[request.param]))


def test_nothing_is_fetched_from_anywhere(root: Element) -> None:
    fetching = {"src", "href", "xlink:href", "srcset", "poster", "action", "background"}
    for element in root.all():
        assert element.name not in {"link", "img", "iframe", "object", "embed", "base", "image"}
        assert not fetching & element.attributes.keys()
        assert not any(name.startswith("on") for name in element.attributes)
        assert "url(" not in element.attributes.get("style", "")
    for element in (*root.all("style"), *root.all("script")):
        assert not re.search(r"url\(|@import|https?:|fetch|XMLHttp|innerHTML", element.text)
    policy = root.all("meta")[1].attributes["content"]
    assert policy.startswith("default-src 'none'; ")


def test_every_drawing_is_named_and_every_name_is_there_once(root: Element) -> None:
    ids = [element.attributes["id"] for element in root.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for drawing in root.all("svg"):
        if drawing.attributes.get("aria-hidden") == "true":
            continue
        assert drawing.attributes["role"] == "img"
        assert root.one(drawing.attributes["aria-labelledby"]).text.strip()
        if "aria-describedby" in drawing.attributes:
            assert root.one(drawing.attributes["aria-describedby"]).text.strip()


def test_tables_have_headers(root: Element) -> None:
    tables = root.all("table")
    assert tables
    for table in tables:
        for row in table.all("tr"):
            assert row.all("th")
        assert all(cell.attributes.get("scope") for cell in table.all("th"))


def test_paths_are_numbers_and_labels_lie_beside_the_plot(root: Element) -> None:
    for path in root.all("path"):
        assert re.fullmatch(r"[MHVhvz0-9. -]*", path.attributes["d"])
    for plot in root.all(style="plot"):
        for side, style in (("left", "x"), ("top", "y")):
            places = [
                float(match[1])
                for label in plot.all("span", style)
                if (match := re.fullmatch(rf"{side}:([0-9.]+)%", label.attributes.get("style", "")))
            ]
            assert all(0 <= place <= 100 for place in places)
            assert places == sorted(places, reverse=style == "y")


def test_words_of_the_page_hold_no_number_that_is_none(root: Element) -> None:
    text = " ".join(part.text for part in root.all("main"))
    assert not re.search(r"\b(nan|inf|None|True|False)\b", text)


def test_headline_says_the_losses_and_when_the_base_was_passed(tmp_path: Path) -> None:
    losses = [6.0, 3.0, 2.3, 2.1]
    events = [run_event(40), baseline_event(2.4), *(step_event(i) for i in range(1, 41))]
    events += [evaluation_event(10 * i, loss) for i, loss in enumerate(losses)]
    text = parsed(page(tmp_path, events)).all("dl", "headline")[0].text
    for word in ("6.000", "2.100", "2.400", "10.5M tokens", "at step 20, not yet at 5.24M"):
        assert word in text
    assert "\N{MINUS SIGN}0.300 to the base" in text


def test_headline_says_that_the_base_was_not_passed(tmp_path: Path) -> None:
    events = [run_event(9), baseline_event(2.0), evaluation_event(0, 5), evaluation_event(9, 3)]
    headline = parsed(page(tmp_path, [*events, step_event(9)])).all("dl", "headline")[0]
    assert "not in 4.72M tokens" in headline.text
    assert not headline.all(style="good")


def test_control_is_drawn_compared_and_named_apart(tmp_path: Path) -> None:
    run = list(training(steps=60, depth=3))
    root = parsed(page(tmp_path, run, run))
    names = {path.attributes.get("data-name") for path in root.one("loss").all("path", "held")}
    assert names >= {"smollm2-205m-dus, held-out", "smollm2-205m-dus (2), held-out"}


def test_shorter_control_is_compared_where_both_were_evaluated_or_not_at_all(
    tmp_path: Path,
) -> None:
    def evaluated(losses: dict[int, float]) -> list[Event]:
        steps = [step_event(step) for step in range(1, max(losses) + 1)]
        return [run_event(99), *steps, *(evaluation_event(s, x) for s, x in losses.items())]

    short = evaluated({0: 3.0, 40: 2.5})
    for losses, told in (({0: 6.0, 40: 2.75, 80: 2.0}, "2.750"), ({0: 6.0, 80: 2.0}, "none")):
        [run, control] = parsed(page(tmp_path, evaluated(losses), short)).all("tbody")[0].all("tr")
        assert [cell.text for cell in run.all("td")][2:] == ["6.000", "2.000", told]
        assert [cell.text for cell in control.all("td")][2:] == ["3.000", "2.500", "2.500"]


def test_table_of_layers_tells_where_each_is_from(tmp_path: Path) -> None:
    rows = parsed(page(tmp_path, training(steps=20, depth=8, new=4))).one("layer-table").all("tr")
    assert len(rows) == 9
    assert "base 3" in rows[4].text
    assert "new" in rows[4].text
    assert "copied" in rows[3].text


def test_seams_are_told_before_and_after(tmp_path: Path) -> None:
    seam = {"layer": 2, "original": ["base", 1], "cosine": 0.5, "norm_ratio": 2.0}
    later = seam | {"cosine": 0.875, "norm_ratio": None}
    events = [run_event(9, 4)]
    events += [{"event": "seams", "step": n, "seams": [s]} for n, s in ((0, seam), (9, later))]
    rows = parsed(page(tmp_path, events)).all("table")[0].all("tr")
    assert [cell.text for cell in rows[-1].all("td")] == [
        "base 1",
        "0.500",
        "0.875",
        "2.000",
        "none",
    ]


def test_seams_that_are_measured_only_since_a_run_went_on_are_told_as_well(
    tmp_path: Path,
) -> None:
    seam = {"layer": 2, "original": ["base", 1], "cosine": 0.5, "norm_ratio": 2.0}
    seams = ([seam], [seam, seam | {"layer": 3, "original": ["b", 0]}])
    events = [{"event": "seams", "step": n, "seams": found} for n, found in enumerate(seams)]
    rows = parsed(page(tmp_path, [run_event(9, 4), *events])).all("table")[0].all("tr")
    assert [cell.text for cell in rows[-1].all("td")] == ["b 0", "none", "0.500", "none", "2.000"]


def test_losses_on_other_data_are_said_to_be_left_out(tmp_path: Path) -> None:
    events = [evaluation_event(n, 2.0, data="ab"[n > 0]) for n in range(3)]
    facts = parsed(page(tmp_path, [run_event(9), *events])).all("table", "facts")[0].text
    assert "1 held-out loss on other data" in facts


def test_padding_is_not_called_a_token(tmp_path: Path) -> None:
    steps = [step_event(n, valid=run_event()["tokens_per_step"] // 4) for n in (1, 2)]
    facts = parsed(page(tmp_path, [run_event(9), *steps])).all("table", "facts")[0].text
    assert "Positions 1,048,576, padding included" in facts
    assert "Learned 25.0% of the positions" in facts


def test_skipped_steps_are_marked(tmp_path: Path) -> None:
    steps = [step_event(i) for i in range(1, 9)]
    steps[3] |= {"loss": None, "gradient_norm": None, "skipped": "not finite"}
    steps[6] |= {"skipped": "spike"}
    norm = parsed(page(tmp_path, [run_event(9), *steps])).one("norm")
    marks = [
        glyph.attributes["style"]
        for glyph in norm.all("span", "glyph")
        if glyph.attributes.get("style")
    ]
    assert [style.split(";")[0] for style in marks] == ["left:50%", "left:87.5%"]


def test_ten_thousand_steps_of_128_layers_take_less_than_half_a_megabyte(tmp_path: Path) -> None:
    runs = [list(training(steps=10_000, depth=128, seams=3)), list(control(10_000))]
    whole = page(tmp_path, *runs)
    assert len(whole.encode()) < 500_000
    for path in parsed(whole).all("path", "line"):
        assert len(path.attributes["d"].split(" ")) <= 2 * 1500


def test_extremes_of_a_long_run_are_in_its_drawing(tmp_path: Path) -> None:
    steps = [step_event(i, 2.0) for i in range(1, 5001)]
    steps[2345]["loss"] = 3.0
    loss = parsed(page(tmp_path, [run_event(5000), *steps])).one("loss")
    [raw] = loss.all("path", "raw")
    heights = [float(y) for y in raw.attributes["d"][1:].split(" ")[1::2]]
    high, low = (
        float(e) for e in loss.all("div", "plot")[0].attributes["data-y"].split(" ")[1::-1]
    )
    assert high - (high - low) * min(heights) / 1000 == pytest.approx(3.0, abs=1e-3)
    assert heights.count(min(heights)) == 1


def test_same_metrics_give_the_same_bytes(tmp_path: Path) -> None:
    run = list(training(steps=30, depth=4))
    assert page(tmp_path, run) == page(tmp_path, run)


def hostile(name: str) -> list[Event]:
    """A run in which every text is this one."""
    seam = {"layer": 1, "original": [name, 1], "cosine": 0.5, "norm_ratio": 2.0}
    layers = [{"sources": [[name, i]], "new": i == 2, "seam": i == 1} for i in range(3)]
    texts = dict.fromkeys(("name", "stage", "device", "precision", "at"), name)
    return [
        run_event(9, layers=layers, versions={name: name}, **texts),
        baseline_event() | {"name": name},
        step_event(1),
        evaluation_event(0, 3.0),
        evaluation_event(1, 2.0),
        *({"event": "seams", "step": n, "seams": [seam]} for n in (0, 1)),
        {"event": "layers", "step": 1, "gradient_norms": [1, 1, 1], "moved": [0, 0, 0]},
        {"event": "end", "step": 1, "reason": name},
    ]


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(evil_names)
@example("</title></style></script><script>alert(1)</script>")
@example('"><img src=x onerror=alert(1)>')
@example("' onmouseover='alert(1)")
def test_page_has_the_same_elements_whatever_the_names(tmp_path: Path, name: str) -> None:
    name = name.encode("utf-8", "replace").decode() or "?"
    plain, evil = (
        parsed(page(tmp_path, hostile(text), hostile(text), title=text)) for text in ("plain", name)
    )
    assert evil.shape == plain.shape
    assert evil.all("h1")[0].text == shown(name)
    assert evil.all("title")[0].text == shown(name)
    assert shown(name) in evil.all("table", "facts")[0].text
    scripts = [element.text for element in (*evil.all("script"), *evil.all("style"))]
    assert scripts == [element.text for element in (*plain.all("script"), *plain.all("style"))]


def test_policy_lets_the_one_script_run(tmp_path: Path) -> None:
    import base64
    import hashlib

    root = parsed(page(tmp_path, [run_event(9)]))
    [script] = root.all("script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in root.all("meta")[1].attributes["content"]


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.floats(-1e30, 1e30) | st.none(), min_size=1, max_size=60))
@example([1e30, -1e30])
@example([5e-324, 0.0])
def test_any_finite_numbers_can_be_drawn(tmp_path: Path, values: list[float | None]) -> None:
    keys = ("loss", "learning_rate", "gradient_norm", "tokens_per_second", "mfu")
    steps = [step_event(i, **dict.fromkeys(keys, v)) for i, v in enumerate(values, 1)]
    layers: list[dict[str, Any]] = [
        {"event": "layers", "step": i, "gradient_norms": [v, v], "moved": [v, v]}
        for i, v in enumerate(values, 1)
    ]
    root = parsed(page(tmp_path, [run_event(99, 2), baseline_event(), *steps, *layers]))
    for path in root.all("path"):
        assert re.fullmatch(r"[MHVhvz0-9. -]*", path.attributes["d"])


def test_damaged_line_is_named_and_an_older_report_stays(tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    page(tmp_path, [run_event(9)])
    before = output.read_bytes()
    metrics = tmp_path / "0.jsonl"
    metrics.write_text(json.dumps(run_event(9)) + "\n{}\n")
    with pytest.raises(DataError, match=rf"{re.escape(str(metrics))}:2: has no 'event'\n  fix: "):
        write_report([metrics], output, title="x")
    assert output.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.jsonl", "report.html"]


def test_report_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    metrics = synthetic.write(tmp_path / "m.jsonl", [run_event(9)])
    output = tmp_path / "taken"
    output.mkdir()
    with pytest.raises(OutputError, match="cannot be written") as error:
        write_report([metrics], output, title="x")
    assert str(output) in str(error.value)
    assert error.value.exit_code == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.jsonl", "taken"]
    with pytest.raises(OutputError, match="No such file"):
        write_report([metrics], tmp_path / "nowhere" / "r.html", title="x")
