"""The page itself: whole, alone, honest, and the same every time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from harness.errors import BadInput
from harness.report import tables, write_report
from harness.report.page import LIMIT_BYTES, p_value, render
from harness.store import Tables, load
from tests.report.small_run import SmallRun, swept

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
    sections = ["verdict", "differences", "networks", "rig", "map", "trade", "latency", "loss"]
    sections += ["listen", "trouble", "method"]
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
        (few(utterances=()), "No verdict: no candidate was scored here (PESQ is defined"),
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
        codecs=("pcm", "opus", "g722"),
        transports=("udp",),
        utterances=names,
        music=(),
        troubled=False,
    )
    text = Page(write_report(run.write(tmp_path)).read_text()).text
    assert "opus sounded best" in text
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


def test_no_p_value_looks_like_zero() -> None:
    assert [p_value(p) for p in (0.0002, 0.001, 0.0391, None)] == ["< 0.001", "0.001", "0.039", "–"]


def test_a_sweep_of_few_utterances_has_curves_of_which_nothing_is_claimed(tmp_path: Path) -> None:
    run = SmallRun(
        codecs=("opus", "g722"),
        transports=("udp",),
        networks=swept("bursty"),
        music=(),
        troubled=False,
        audio=False,
    )
    mine = section(write_report(run.write(tmp_path)).read_text(), "sweeps")
    said = words(f"{mine}</section>")
    assert "No two curves cross in PESQ-WB for certain." in said
    assert "too few utterances, nothing is claimed" in said


@pytest.fixture(scope="module")
def swept_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep over loss in the virtual lab, whose codecs cross, with both controls added."""
    return SmallRun(
        codecs=("pcm", "opus", "g722"),
        transports=("udp",),
        networks=("clean", "handover", *swept("bursty")),
        utterances=tuple(f"u{number}" for number in range(6)),
        music=(),
        repetitions=2,
        added=("pcm", "clean"),
        virtual=True,
        noise=0.0,
        troubled=False,
        audio=False,
        run={"baseline": "pcm"},
    ).write(tmp_path_factory.mktemp("swept"))


@pytest.fixture(scope="module")
def swept_html(swept_run: Path) -> str:
    return write_report(swept_run).read_text(encoding="utf-8")


def section(html: str, name: str) -> str:
    start = html.index(f'<section id="{name}">')
    return html[start : html.index("</section>", start)]


def words(html: str) -> str:
    return " ".join(Page(html).text.split())


def test_a_simulated_run_says_so_before_all_else(swept_html: str, html: str) -> None:
    first = words(swept_html[: swept_html.index("<nav")] + "</body></html>")
    assert first.index("Simulated: no packet crossed a kernel") < first.index("Lab virtual")
    assert "auto: no Docker engine answers, nor network namespaces" in first
    assert "compute profile:" in first
    assert "harness agree FILE" in first
    assert "Simulated" not in html


def test_a_sweep_has_its_curves_and_crossings(swept_html: str) -> None:
    mine = section(swept_html, "sweeps")
    assert mine.count("<svg") == 5
    assert re.search(
        r"opus falls under g722 at [\d.]+ % \[[\d.]+, [\d.]+\]\.", words(f"{mine}</section>")
    )
    assert "Dotted grey: added control" in mine
    assert not re.search(r"<b>pcm</b> (falls|rises)", mine)


def test_points_of_a_sweep_do_not_flood_the_page(swept_html: str) -> None:
    for name in ("verdict", "map", "trade", "latency"):
        shown = words(section(swept_html, name) + "</section>")
        assert all(f"bursty@loss={share}%" in shown for share in (0, 10, 20))
        assert not any(f"bursty@loss={share}%" in shown for share in (5, 15))
    for name in ("networks", "all"):
        mine = section(swept_html, name)
        assert mine.index("bursty@loss=0%") < mine.index("<details>") < mine.index("bursty@loss=5%")


def test_controls_are_shown_but_not_ranked(swept_html: str) -> None:
    verdict = section(swept_html, "verdict")
    assert "pcm" not in verdict
    assert "<h3>clean" not in verdict
    heat = section(swept_html, "map")
    assert "<small>control</small>" in heat
    assert "clean" in heat


def test_networks_say_how_their_impairments_come_about(swept_html: str) -> None:
    mine = words(section(swept_html, "networks") + "</section>")
    assert "every codec meets the same events at the same media time" in mine
    assert "media-time + scheduled" in mine
    assert "yes, all 12 blocks" in mine
    assert "rate as asked" in mine


def test_cells_of_a_block_that_met_different_traces_are_a_warning(swept_run: Path) -> None:
    run = load(swept_run)
    mine = run.cells["network"] == "handover"
    run.cells.loc[mine & (run.cells["codec"] == "opus"), "trace_sha256"] = "0" * 64
    html = render(run, swept_run)
    said = html.index("In 12 blocks the cells did not all meet the same impairment trace")
    assert said < html.index("<nav")
    assert "no: not in 12 of 12" in html


def test_a_rig_that_repeats_itself_exactly_is_told_from_one_that_does_not(
    swept_html: str, tmp_path: Path
) -> None:
    mine = section(swept_html, "rig")
    assert "Repetitions of an utterance are identical in every figure." in mine
    assert "In the virtual lab that is so by construction" in mine
    real = section(write_report(few(repetitions=2).write(tmp_path)).read_text(), "rig")
    assert "differ by nothing but the rig" in real
    assert "virtual" not in real


def test_without_repetitions_the_rig_is_not_said_to_repeat_itself(html: str) -> None:
    assert "how well the rig repeats itself is not known" in section(html, "rig")


def test_differences_are_to_the_baseline_that_the_run_names(swept_html: str) -> None:
    mine = words(section(swept_html, "differences") + "</section>")
    assert mine.startswith("Differences to pcm")
    assert "the scenario's baseline" in mine
    assert "Nothing can be claimed" not in mine
    assert "6 × 2" in mine


def test_differences_of_few_utterances_claim_nothing(html: str) -> None:
    mine = words(section(html, "differences") + "</section>")
    assert "Nothing can be claimed: no network has the 6 utterances" in mine
    assert "no interval" in mine


@dataclass
class Guarded:
    """Rows that are not given out whole, and that count how many cells are asked for at once."""

    tables: Tables
    name: str
    most: list[int] = field(default_factory=list)

    def batches(
        self, cell_ids: Collection[str] | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pd.DataFrame]:
        assert cell_ids is not None
        self.most.append(len(cell_ids))
        yield getattr(self.tables, f"{self.name}_of")(cell_ids, columns)


def test_the_page_of_a_long_run_reads_few_packets_and_frames(small_run: Path, html: str) -> None:
    run = load(small_run)
    packets, frames = (Guarded(run, name) for name in ("packets", "frames"))
    guarded = Tables(run.runs, run.cells, packets, frames, run.scores)
    assert render(guarded, small_run) == html
    packets.most.clear()
    shares = tables.fates(guarded, most=3)
    assert max(packets.most) == 3
    assert set(shares["cells"]) <= {1, 2, 3}


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
