"""The corpus script on packages made here: prose is kept, once, and everything else is left out."""

import gzip
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROSE = (
    "The garden was laid out by the man who had owned the house before them, and there was a "
    "path of grey stone that led from the door to the well, where they drew water."
)


def sentences(topic: str, count: int = 6) -> list[str]:
    return [f"{PROSE} This is what is said of {topic} in part {number}." for number in range(count)]


def paragraphs(topic: str) -> str:
    return "".join(f"<p>{text}</p>" for text in sentences(topic))


def make_package(folder: Path, name: str, files: dict[str, bytes]) -> None:
    """A Debian package of version 1.0 with files below /usr/share/doc."""
    tree = folder / name
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: a <a@b.org>\n"
        "Description: a book\n"
    )
    for path, data in files.items():
        target = tree / "usr/share/doc" / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    package = folder / f"{name}_1.0_all.deb"
    subprocess.run(["dpkg-deb", "-b", tree, package], check=True, capture_output=True)


def corpus(
    folder: Path,
    *packages: str,
    code: int = 0,
    path: str | None = None,
    name: str = "corpus.jsonl",
) -> str:
    """Runs the script on packages that are here already; what it says."""
    output, keep = str(folder / name), ("--downloads", str(folder))
    done = subprocess.run(
        [sys.executable, "recipes/corpus.py", output, "--packages", *packages, *keep],
        cwd=ROOT,
        env={**os.environ, "PATH": os.environ["PATH"] if path is None else path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def documents(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]


def test_page_becomes_its_prose_without_what_leads_about(tmp_path: Path) -> None:
    page = (
        "<html><head><title>no</title><style>p{}</style></head><body>"
        '<div class="navheader"><table><tr><td>Next <a href="x">page</a></td></tr></table></div>'
        f"<h1>The garden</h1><p>It is said&nbsp;that <em>he</em> came.</p>{paragraphs('it')}"
        "<h2>Nothing here</h2><h2>A list</h2><ol><li>First.</li><li><p>Second.</p></li></ol>"
        "<ul><li>Loose.</li></ul><pre>\n    a = 1\n      b\n</pre>"
        "<table><tr><td>x</td><td>y</td></tr></table>"
        '<p><a href="y">Go on to another page of this book</a></p><script>no()</script>'
        "<h3>The end of nothing</h3></body></html>"
    )
    make_package(tmp_path, "book", {"html/garden.html": page.encode()})
    corpus(tmp_path, "book")
    (document,) = documents(tmp_path)
    assert document["source"] == "book"
    assert document["name"] == "usr/share/doc/book/html/garden.html"
    before = ("The garden", "It is said that he came.")
    after = ("A list", "1. First.\n2. Second.\n- Loose.", "a = 1\n  b")
    assert document["text"] == "\n\n".join((*before, *sentences("it"), *after))


def test_other_languages_code_tables_and_stubs_are_left_out(tmp_path: Path) -> None:
    german = "Der Garten wurde von dem Mann angelegt, dem das Haus vor ihnen gehörte. " * 4
    files = {
        "a.html": f"<body>{paragraphs('a')}</body>",
        "de.html": "<body>" + f"<p>{german}</p>" * 6 + "</body>",
        "code.html": f"<body><p>{PROSE}</p>" + "<pre>a = b + c;\nd();\n</pre>" * 99 + "</body>",
        "table.html": "<body>" + "<tr><td>one</td><td>two</td></tr>" * 99 + "</body>",
        "short.html": f"<body><p>{PROSE}</p></body>",
        "picture.png": "no page",
    }
    make_package(tmp_path, "book", {name: text.encode() for name, text in files.items()})
    corpus(tmp_path, "book")
    assert [document["name"][-6:] for document in documents(tmp_path)] == ["a.html"]
    summary = json.loads((tmp_path / "corpus.summary.json").read_text())
    assert summary["documents"] == summary["packages"]["book"]["documents"] == 1
    assert summary["packages"]["book"]["version"] == "1.0"
    assert summary["bytes"] == len(documents(tmp_path)[0]["text"].encode())
    assert sum(summary["left_out"].values()) == 4


def test_what_came_before_is_not_told_again(tmp_path: Path) -> None:
    shared = paragraphs("the same")
    files = {
        "a.html": f"<body>{shared}</body>",
        "b.html": f"<body>{shared}<p>And one more.</p></body>",
        "c.html": f"<body>{paragraphs('another')}<p>{sentences('the same')[2]}</p></body>",
    }
    make_package(tmp_path, "one", {name: text.encode() for name, text in files.items()})
    make_package(tmp_path, "two", {"a.html": files["a.html"].encode()})
    assert "two: no English prose in it\n  fix: " in corpus(tmp_path, "one", "two", code=1)
    assert not list(tmp_path.glob("corpus.jsonl*"))
    corpus(tmp_path, "one")
    first, second = documents(tmp_path)
    assert first["text"].split("\n\n") == sentences("the same")
    assert second["text"].split("\n\n") == sentences("another")


def test_line_that_stands_on_most_pages_is_left_out(tmp_path: Path) -> None:
    files = {
        f"{number:02}.html": f"<body><p>The book of books.</p>{paragraphs(str(number))}</body>"
        for number in range(12)
    }
    make_package(tmp_path, "book", {name: text.encode() for name, text in files.items()})
    corpus(tmp_path, "book")
    assert len(documents(tmp_path)) == 12
    assert "The book of books." not in (tmp_path / "corpus.jsonl").read_text()


def test_plain_text_and_perls_documentation_are_read(tmp_path: Path) -> None:
    text = "\n\n".join(part.replace(". ", ".\n") for part in sentences("text"))
    pod = "=head1 The B<garden>\n\n" + "\n\n".join(
        part.replace("grey stone", "C<grey> I<B<stone>>") for part in sentences("pod")
    )
    more = "\n\n=over\n\n=item * \n\nL<perlfunc/open> is E<lt>it.\n\n=back\n\n  code();\n\n=cut\n"
    files = {"book.txt.gz": gzip.compress(text.encode()), "book.pod": (pod + more).encode()}
    make_package(tmp_path, "book", files)
    corpus(tmp_path, "book")
    by_name = {document["name"].rpartition("/")[2]: document for document in documents(tmp_path)}
    assert by_name["book.txt.gz 0"]["text"] == "\n\n".join(sentences("text"))
    assert by_name["book.pod"]["text"].startswith("The garden\n\n" + sentences("pod")[0])
    assert by_name["book.pod"]["text"].endswith("perlfunc/open is <it.\n\ncode();")


def test_novels_of_an_r_package_are_read_by_chapter(tmp_path: Path) -> None:
    lines = [
        "EMMA",
        "",
        "CHAPTER I",
        "",
        *sentences("one"),
        "",
        "CHAPTER II",
        "",
        *sentences("two"),
    ]
    vector = b"X\n" + bytes(12) + (16).to_bytes(4, "big") + len(lines).to_bytes(4, "big")
    for line in lines:
        vector += b"\0\4\0\t" + len(line).to_bytes(4, "big") + line.encode()
    data = len(vector).to_bytes(4, "big") + zlib.compress(vector)
    make_package(tmp_path, "r-cran-janeaustenr", {"data/Rdata.rdb": data * 2})
    corpus(tmp_path, "r-cran-janeaustenr")
    names = [(document["name"], document["text"][:11]) for document in documents(tmp_path)]
    assert names == [("Emma 1", "CHAPTER I\n\n"), ("Emma 2", "CHAPTER II\n")]


def test_same_packages_give_the_same_bytes(tmp_path: Path) -> None:
    files = {f"{number}.html": paragraphs(str(number)).encode() for number in range(20)}
    make_package(tmp_path, "book", files)
    corpus(tmp_path, "book")
    first = (tmp_path / "corpus.jsonl").read_bytes()
    names = [document["name"] for document in documents(tmp_path)]
    assert names == sorted(names)
    corpus(tmp_path, "book")
    assert (tmp_path / "corpus.jsonl").read_bytes() == first


def test_machine_without_apt_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    said = corpus(tmp_path, "book", code=1, path=str(tmp_path / "bin"))
    assert said == "error: apt-get: not found\n  fix: run this on Debian, or in a container of it\n"
    assert {path.name for path in tmp_path.iterdir()} == {"bin"}


def test_two_versions_of_a_package_are_refused(tmp_path: Path) -> None:
    for version in ("1.0", "2.0"):
        (tmp_path / f"book_{version}_all.deb").touch()
    assert "2 files of book\n  fix: keep one version there" in corpus(tmp_path, "book", code=1)


@pytest.mark.parametrize("data", [b"", b"no package"])
def test_damaged_package_is_an_error_and_leaves_nothing(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "book_1.0_all.deb").write_bytes(data)
    said = corpus(tmp_path, "book", code=1)
    assert said.startswith("error: dpkg-deb -f: ")
    assert "\n  fix: remove that file" in said
    assert [path.name for path in tmp_path.iterdir()] == ["book_1.0_all.deb"]


def test_the_folder_of_the_corpus_is_made(tmp_path: Path) -> None:
    make_package(tmp_path, "book", {"a.html": paragraphs("it").encode()})
    corpus(tmp_path, "book", name="models/training/corpus.jsonl")
    assert documents(tmp_path / "models" / "training")
    assert (tmp_path / "models" / "training" / "corpus.summary.json").exists()
