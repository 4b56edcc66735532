"""Builds an English text corpus out of the books and manuals that Debian packages hold.

    python recipes/corpus.py models/training/corpus.jsonl
    python recipes/corpus.py models/training/small.jsonl --packages debian-handbook debian-faq

One JSON object a line, ``{"text": …, "source": package, "name": file}``, one document per page or
chapter, and beside it ``corpus.summary.json``: documents, bytes, versions, what was left out and
why; the folder is made. Needs Debian's ``apt-get`` and ``dpkg-deb``, no root; installs nothing and
leaves apt's state alone. The same versions of the packages give the same bytes. The names are those
of Debian 12.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from pathlib import Path

from corpus_text import Block, documents_of

# package: the files that are prose, as a regular expression on the path in the package. Left out
# are generated references (a page a function), translations, changelogs, release notes, source.
HTML = r"\.html?(\.gz)?$"
SPHINX = r"/html/(?!_|genindex|search|change|release|contributor/api|configuration/config).*\.html$"
PACKAGES = {
    "r-cran-janeaustenr": r"data/Rdata\.rdb$",
    "bible-kjv-text": r"bible\.data$",
    "cfi-en": HTML,
    "jargon-text": r"/jargon\.txt\.gz$",
    "debian-handbook": r"/en-US/[^/]+\.html$",
    "debian-history": r"\.en\.html$",
    "debian-faq": r"\.en\.html$",
    "debian-reference-en": HTML,
    "debian-kernel-handbook": HTML,
    "debian-policy": r"policy\.html/[^/]+\.html$",
    "developers-reference": HTML,
    "maint-guide": HTML,
    "debmake-doc": r"\.en\.html$",
    "debian-edu-doc-en": HTML,
    "installation-guide-amd64": r"/en/[^/]+\.html$",
    "harden-doc": r"/en-US/[^/]+\.html$",
    "fai-doc": HTML,
    "user-mode-linux-doc": HTML,
    "gnome-user-docs": r"/C/gnome-help/.*\.page$",
    "gnucash-docs": r"/gnucash-(guide|help)-en/.*\.html$",
    "gimp-help-en": HTML,
    "libreoffice-help-en-us": r"/text/(?!sbasic).*\.html$",
    "kicad-doc-en": HTML,
    "lilypond-doc-html": r"/(learning|notation|usage|essay|music-glossary)/[^/.]+\.html$",
    "gnugo": HTML,
    "linux-doc-6.1": r"/html/(?!translations|genindex|hwmon|gpu/amdgpu).*\.html$",
    "python3.11-doc": r"/html/(?!whatsnew/changelog|genindex|search)[^_].*\.html$",
    "perl-doc": r"/pod/perl(?!.*delta|toc).*\.pod$",
    "rust-doc": r"/html/(book|nomicon|reference|edition-guide|embedded-book|rustc|cargo)/.*\.html$",
    "ghc-doc": r"/users_guide/(?!.*genindex).*\.html$",
    "erlang-doc": r"^(?!.*(lib/wx|jinterface|megaco|/notes)).*/html/.*\.html$",
    "gap-doc": r"/(ref|tut|hpc)/.*(?<!_mj)\.html$",
    "octave-doc": r"/octave\.html/.*\.html$",
    "git-doc": HTML,
    "zsh-doc": HTML,
    "mutt": HTML,
    "privoxy": r"/(user-manual|faq|developer-manual)/.*\.html$",
    "postgresql-doc-15": r"/html/(?!release).*\.html$",
    "sqlite3-doc": r"^(?!.*(releaselog|c3ref|syntax/|session/|requirements)).*\.html$",
    "python-sqlalchemy-doc": SPHINX,
    "python-django-doc": SPHINX,
    "sphinx-doc": SPHINX,
    "apache2-doc": r"/en/.*\.html$",
    "bind9-doc": HTML,
    "postfix-doc": r"/html/(?!.*\.[158]\.html).*\.html$",
    "exim4-doc-html": HTML,
    "varnish-doc": SPHINX,
    "xen-doc": r"/html/(?!hypercall).*\.html$",
    "neutron-doc": SPHINX,
    "nova-doc": SPHINX,
    "cinder-doc": SPHINX,
    "keystone-doc": r"/html/(?!_|genindex|api|configuration/config).*\.html$",
    "swift-doc": r"/base/(?!_|genindex|api).*\.html$",
    "ganeti-doc": SPHINX,
    "bacula-doc": HTML,
}

COMMON_WORDS = frozenset(
    re.findall(
        r"\w+",
        "the of and to a in is that it for on with as be this are by or an not from at you can "
        "which will if has was have but all when they he his i she her there then their its we "
        "your one no so what into were who them him may",
    )
)


class CorpusError(Exception):
    """A message for the user: what is wrong and what to do."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one package gave. Bytes are of text, in UTF-8."""

    version: str
    documents: int
    bytes: int


def is_english_prose(text: str) -> bool:
    """Whether a text of a sentence or more has the words that English prose always has."""
    words = re.findall(r"[^\W\d_]+", text.lower())
    ascii_letters = sum(character.isascii() for character in text)
    return (
        bool(words)
        and sum(w in COMMON_WORDS for w in words) > 0.22 * len(words)
        and ascii_letters > 0.9 * len(text)
    )


def is_sentence(block: Block) -> bool:
    """Whether a block reads as prose: eight words or more that end as a sentence does."""
    return (
        block.kind in {"text", "item", "cell"}
        and len(block.text.split()) >= 8
        and block.text[-1] in ".!?:;)\"'\u201d\u2019"
    )


def is_worth_reading(block: Block) -> bool:
    """Whether a block is no long listing, no short cell, no rule, no foreign language."""
    if block.kind == "code":
        return len(block.text) <= 1500 and block.text.count("\n") <= 25
    if block.kind == "cell" and not is_sentence(block):
        return False
    return re.search(r"\w", block.text) is not None and (
        len(block.text) <= 150 or is_english_prose(block.text)
    )


def tidied(blocks: list[Block]) -> list[Block]:
    """The blocks worth reading, in order, without headings that nothing stands under."""
    result: list[Block] = []
    for block in reversed([block for block in blocks if is_worth_reading(block)]):
        below = result[-1] if result else None
        empty = below is None or (below.kind == "heading" and below.level <= block.level)
        if block.kind not in {"heading", "term"} or not empty:
            result.append(block)
    return result[::-1]


def refused(blocks: list[Block]) -> str:
    """Why a document is no prose worth learning; empty where it is."""
    size = sum(len(block.text) for block in blocks)
    prose = [block for block in blocks if is_sentence(block)]
    written = sum(len(block.text) for block in prose)
    if written < 500:
        return "too short"
    if written < 0.55 * size:
        return "code, tables or lists"
    return "" if is_english_prose(" ".join(block.text for block in prose)) else "not English"


def rendered(blocks: list[Block]) -> str:
    """The document's text: blocks apart by an empty line, items and terms close together."""
    text = blocks[0].text
    for above, block in pairwise(blocks):
        close = (above.kind == block.kind == "item") or above.kind == "term"
        text += ("\n" if close else "\n\n") + block.text
    return text


def read_file(folder: Path, path: Path) -> list[tuple[str, list[Block]]]:
    """(name, tidied blocks) of the documents in one file of a package."""
    name = path.relative_to(folder).as_posix()
    return [(part, tidied(blocks)) for part, blocks in documents_of(path, name)]


def without_refrains(documents: list[tuple[str, list[Block]]]) -> list[tuple[str, list[Block]]]:
    """A package's documents without the paragraphs that stand on one page in five."""
    on_pages = Counter(text for _, blocks in documents for text in {block.text for block in blocks})
    often = max(10, len(documents) // 5)

    def stays(block: Block) -> bool:
        return block.kind in {"heading", "code"} or on_pages[block.text] < often

    return [(name, [block for block in blocks if stays(block)]) for name, blocks in documents]


class Corpus:
    """Documents in the order they came, each paragraph once."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self.left_out: Counter[str] = Counter()

    def accepted(self, blocks: list[Block]) -> str | None:
        """The document's text without paragraphs that came before, or None where it is refused."""
        fresh: list[Block] = []
        own: set[bytes] = set()
        for block in blocks:
            key = hashlib.sha256(re.sub(r"\W+", "", block.text.lower()).encode()).digest()
            if len(block.text) < 60 or not (key in self.seen or key in own):
                own.add(key)
                fresh.append(block)
        reason = refused(blocks)
        if not reason and sum(len(b.text) for b in fresh) < 0.5 * sum(len(b.text) for b in blocks):
            reason = "seen before"
        fresh = tidied(fresh)
        if reason := reason or refused(fresh):
            self.left_out[reason] += 1
            return None
        self.seen |= own
        return rendered(fresh)


def run(folder: Path, fix: str, *command: str) -> str:
    """Standard output of a Debian tool.

    Raises:
        CorpusError: it is not there, or it failed.
    """
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        message = f"{command[0]}: not found\n  fix: run this on Debian, or in a container of it"
        raise CorpusError(message) from None
    if done.returncode:
        raise CorpusError(f"{' '.join(command[:2])}: {done.stderr.strip()}\n  fix: {fix}")
    return done.stdout


def download(package: str, folder: Path) -> Path:
    """The package's file in `folder`, fetched unless it is there already."""
    if not (found := sorted(folder.glob(f"{package}_*.deb"))):
        fix = f"run 'apt-get update' once; if this release has no {package}, name --packages it has"
        # No cache files and no change of user: apt's own state stays as it is.
        settings = ["APT::Sandbox::User=", "Dir::Cache::pkgcache=", "Dir::Cache::srcpkgcache="]
        options = [part for setting in settings for part in ("-o", setting)]
        run(folder, fix, "apt-get", "download", *options, package)
        found = sorted(folder.glob(f"{package}_*.deb"))
    if len(found) != 1:
        message = f"{folder}: {len(found)} files of {package}\n  fix: keep one version there"
        raise CorpusError(message)
    return found[0]


def documents(
    package: str, file: Path, folder: Path, workers: ProcessPoolExecutor
) -> list[tuple[str, list[Block]]]:
    """(name, blocks) of each document of a package, in the order of its paths."""
    run(folder, "remove that file", "dpkg-deb", "-x", str(file), str(folder))
    wanted = re.compile(PACKAGES.get(package, r"\.(html?|page|pod|txt)(\.gz)?$"))
    paths = sorted(
        path
        for path in folder.rglob("*")
        if wanted.search(path.relative_to(folder).as_posix())
        and path.is_file()
        and not path.is_symlink()
    )
    read = workers.map(read_file, [folder] * len(paths), paths, chunksize=8)
    return without_refrains(list(chain.from_iterable(read)))


def build(
    output: Path, packages: list[str], downloads: Path, workers: ProcessPoolExecutor
) -> tuple[dict[str, Part], dict[str, object]]:
    """Writes the corpus; gives what each package gave, and the rest of the summary."""
    corpus, parts, digest = Corpus(), {}, hashlib.sha256()
    with output.open("wb") as lines:
        for package in packages:
            file = download(package, downloads)
            fix = "remove that file"
            version = run(downloads, fix, "dpkg-deb", "-f", str(file), "Version").strip()
            count = size = 0
            with tempfile.TemporaryDirectory(dir=downloads) as folder:
                for name, blocks in documents(package, file, Path(folder), workers):
                    if text := corpus.accepted(blocks):
                        document = {"text": text, "source": package, "name": name}
                        line = json.dumps(document, ensure_ascii=False).encode() + b"\n"
                        lines.write(line)
                        digest.update(line)
                        count, size = count + 1, size + len(text.encode())
            if not count:
                message = f"{package}: no English prose in it\n  fix: leave it out of --packages"
                raise CorpusError(message)
            parts[package] = Part(version=version, documents=count, bytes=size)
            print(f"{package:28} {version:34} {count:6,} documents {size / 1e6:6.2f} MB")
    return parts, {"sha256": digest.hexdigest(), "left_out": dict(sorted(corpus.left_out.items()))}


def main() -> int:
    """Reads the command line; 0 where the corpus was written, 1 where it was not."""
    parser = argparse.ArgumentParser(
        description="Build an English text corpus out of Debian's books and manuals."
    )
    parser.add_argument("output", type=Path, metavar="OUTPUT.jsonl")
    parser.add_argument("--packages", nargs="+", metavar="NAME", default=list(PACKAGES))
    parser.add_argument("--downloads", type=Path, metavar="FOLDER", help="keep the packages there")
    arguments = parser.parse_args()
    output: Path = arguments.output
    partial = output.with_name(output.name + ".partial")
    packages = list(dict.fromkeys(arguments.packages))
    try:
        with tempfile.TemporaryDirectory() as temporary, ProcessPoolExecutor() as workers:
            downloads = Path(arguments.downloads or temporary).absolute()
            downloads.mkdir(parents=True, exist_ok=True)
            output.parent.mkdir(parents=True, exist_ok=True)
            parts, facts = build(partial, packages, downloads, workers)
        totals = {
            "documents": sum(part.documents for part in parts.values()),
            "bytes": sum(part.bytes for part in parts.values()),
        }
        named = {name: asdict(part) for name, part in parts.items()}
        summary = json.dumps(totals | facts | {"packages": named}, indent=2) + "\n"
        output.with_suffix(".summary.json").write_text(summary, encoding="utf-8")
        partial.replace(output)
    except (CorpusError, OSError) as error:
        partial.unlink(missing_ok=True)
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{output}: {totals['documents']:,} documents, {totals['bytes'] / 1e6:.1f} MB of text")
    return 0


if __name__ == "__main__":
    sys.exit(main())
