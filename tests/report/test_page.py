"""The page itself: whole, alone, honest, and the same every time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.errors import BadInput
from harness.report import tables, write_report
from harness.report.page import LIMIT_BYTES, render
from harness.store import load
from tests.report.small_run import SmallRun

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
EVIL = '<script>alert("x")</script>'


class Page(HTMLParser):
    """What a page refers to, what it says, and whether its tags match."""

    VOID = frozenset({"meta", "link", "br", "input", "img", "hr", "path", "rect", "line", "use"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.scripts = 0
        self.ids: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.references += [v for k, v in attrs if v and k in ("src", "href", "xlink:href")]
        self.scripts += tag == "script"
        if identity := given.get("id"):
            self.ids.append(identity)
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def html(small_run: Path) -> str:
    return write_report(small_run).read_text(encoding="utf-8")


def few(**columns: object) -> SmallRun:
    return SmallRun(**({"codecs": ("pcm",), "transports": ("udp",), "troubled": False} | columns))  # type: ignore[arg-type]


def test_the_report_lies_in_its_run_and_is_small(small_run: Path) -> None:
    path = write_report(small_run)
    assert path == small_run / "report.html"
    assert path.stat().st_size < LIMIT_BYTES
    assert not list(small_run.glob("*.part"))


def test_a_folder_without_a_run_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected the directory of a run"):
        write_report(tmp_path)


def test_the_same_tables_give_the_same_bytes(small_run: Path, html: str) -> None:
    assert render(load(small_run), small_run) == html


def test_the_page_needs_nothing_from_outside(html: str, small_run: Path) -> None:
    page = Page(html)
    for reference in page.references:
        assert reference.startswith(("#", "audio/")), reference
        assert reference.startswith("#") or (small_run / reference).is_file()
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html
    anchors = {reference[1:] for reference in page.references if reference.startswith("#")}
    assert anchors <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_what_matters_comes_first_and_in_order(html: str) -> None:
    sections = ["verdict", "rig", "map", "trade", "latency", "loss", "listen", "trouble", "method"]
    places = [html.index(f'<section id="{name}"') for name in sections]
    assert places == sorted(places)
    for first in ("Random weights: encodec", "1 invalid, 3 failed, 9 unsupported of 54 cells"):
        assert html.index(first) < places[0]


def test_a_synthetic_corpus_is_said_in_the_first_lines(tmp_path: Path) -> None:
    warning = "synthetic speech: quality figures are for plumbing only"
    html = write_report(few(run={"corpus_warning": warning}).write(tmp_path)).read_text()
    assert html.index(warning) < html.index("<nav")


def test_missing_scores_are_dashes_with_their_reason(html: str) -> None:
    assert re.search(r'class="none" title="random weights[^"]*"><b>–</b>', html)
    assert 'title="no ok cell: 3 unsupported"' in html
    assert "nan" not in Page(html).text.lower().split()


def test_every_figure_of_every_configuration_is_in_the_table(html: str, small_run: Path) -> None:
    table = html[html.index('<table class="sortable') :]
    values = re.findall(r'data-value="([\d.]*)"', table[: table.index("</table>")])
    summary = tables.summarise(load(small_run))
    assert values.count("") == summary["mean"].isna().sum()
    assert set(map(str, summary["mean"].dropna())) <= set(values)


def test_names_and_reasons_cannot_become_markup(tmp_path: Path, html: str) -> None:
    run = SmallRun(
        scenario=EVIL,
        utterances=(f"anna{EVIL}",),
        music=(),
        run={"scenario_yaml": f"name: {EVIL}", "lab_why": EVIL},
    )
    evil = write_report(run.write(tmp_path)).read_text()
    assert EVIL not in evil
    assert Page(evil).scripts == Page(html).scripts
    assert EVIL in Page(evil).text
    assert "<b>not here</b>" in Page(evil).text


def test_strange_names_are_drawn_as_they_are(small_run: Path) -> None:
    run = load(small_run)
    strange = {"pcm": "a$b$c_{d}", "opus": "номер 音", "encodec": "x" * 120}
    run.cells["codec"] = run.cells["codec"].replace(strange)
    run.cells["network"] = run.cells["network"].replace("lossy", "a&b<c>")
    text = Page(render(run, small_run)).text
    assert all(name in text for name in (*strange.values(), "a&b<c>"))


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (few(utterances=(), music=()), "No cell was run."),
        (few(all_failed=True), "None of the 9 cells is ok (9 failed)."),
        (few(networks=("lossy",), utterances=("a",), music=()), "is all that was scored here"),
        (few(utterances=()), "No verdict: no speech quality was scored here (PESQ is defined"),
        (few(scored=False), "9 of 9 ok cells are not scored."),
        (few(audio=False), "No audio is embedded."),
        (few(networks=("lossy",)), "has no PCM on a clean network"),
        (few(run={"finished_utc": None}), "This run is not finished"),
        (few(run={"git_dirty": True}), "uncommitted changes"),
    ],
    ids=[
        "no cell",
        "all failed",
        "one cell",
        "music",
        "unscored",
        "mute",
        "no rig",
        "cut",
        "dirty",
    ],
)
def test_odd_runs_have_a_report_that_says_so(run: SmallRun, says: str, tmp_path: Path) -> None:
    assert says in Page(write_report(run.write(tmp_path)).read_text()).text


def test_a_run_with_utterances_enough_has_intervals_and_a_winner(tmp_path: Path) -> None:
    names = tuple(f"u{number:02}" for number in range(8))
    run = SmallRun(
        codecs=("pcm", "opus"), transports=("udp",), utterances=names, music=(), troubled=False
    )
    text = Page(write_report(run.write(tmp_path)).read_text()).text
    assert "pcm sounded best" in text
    assert "95 % interval" in text


def test_audio_is_left_out_to_keep_within_the_limit_and_that_is_said(
    small_run: Path, html: str
) -> None:
    run = load(small_run)
    embedded = html.count('<article class="take">')
    small = render(run, small_run, limit_bytes=len(html) - 40_000)
    assert len(small.encode()) <= len(html) - 40_000
    assert 0 < small.count('<article class="take">') < embedded
    none = render(run, small_run, limit_bytes=0)
    assert "data:audio" not in none
    with_audio = int(run.cells["audio_media"].notna().sum())
    assert f"The audio of {with_audio} cells: it is linked, not embedded." in none


def test_audio_that_is_gone_is_no_obstacle(tmp_path: Path) -> None:
    directory = few().write(tmp_path)
    shutil.rmtree(directory / "audio")
    assert "No audio is embedded." in write_report(directory).read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_browser_opens_it_without_a_word_of_complaint(
    theme: str, small_run: Path, html: str, tmp_path: Path
) -> None:
    del html  # it is written
    assert CHROMIUM is not None
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
        " --disable-background-networking --disable-component-update --disable-sync"
        " --enable-logging=stderr --v=0"
    )
    done = subprocess.run(
        [
            CHROMIUM,
            *flags.split(),
            f"--user-data-dir={tmp_path}",
            "--dump-dom",
            f"{(small_run / 'report.html').as_uri()}#theme={theme}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert f'data-theme="{theme}"' in done.stdout  # the script ran
    assert 'src="data:audio/flac;base64,' in done.stdout
    assert done.stdout.count('data-show="pesq_wb" aria-pressed="true"') == 1
    assert len(re.findall(r'data-heat="[^"]*" hidden', done.stdout)) == 5
