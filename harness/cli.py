"""The commands of ``harness``: parsing, progress, printing, exit codes. No logic lives here."""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from harness import __version__, units
from harness.errors import EXIT_CELLS, EXIT_INTERRUPTED, EXIT_OK, HarnessError

if TYPE_CHECKING:
    from harness.plan import Plan
    from harness.scenario import Scenario

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

EPILOG = """exit codes: 0 all well; 1 some cells failed, are invalid or missing, or none could run;
2 bad input; 3 this machine cannot; 130 interrupted (finished cells are kept: harness run FILE
--resume DIR)"""


class Screen:
    """Progress with time left and a line per cell that did not end well; off a terminal, a line
    per step, for logs."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=err,
            disable=not err.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Screen:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        err.print(escape(text), style="dim")

    def phase(self, name: str, total: int) -> None:
        if self._task is not None:
            self._progress.update(self._task, visible=False)
        self._task = self._progress.add_task(name, total=total)

    def step(self, text: str, *, trouble: bool = False) -> None:
        assert self._task is not None
        self._progress.advance(self._task)
        if trouble or not err.is_terminal:
            task = self._progress.tasks[self._task]
            done = f"[{task.completed:.0f}/{task.total:.0f}] "
            err.print(escape(done + text), style="yellow" if trouble else "", soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = _parser().parse_args(argv)
    # Not what SIGINT has: a shell has its background jobs ignore that one.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except HarnessError as error:
        err.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        return error.exit_code
    except KeyboardInterrupt:
        err.print("interrupted")
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness",
        description="How speech and music survive a bad network: audio codecs over impaired links.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str):  # type: ignore[no-untyped-def]
        sub = commands.add_parser(name, help=text, description=text, epilog=EPILOG)
        sub.set_defaults(command=command)
        return sub

    sub = add("doctor", _doctor, "Say what this machine can do, and the remedy for what it cannot.")
    sub.add_argument("--json", action="store_true", help="machine-readable")

    sub = add("codecs", _codecs, "List the codecs: what each is, its delay, and if it runs here.")
    sub.add_argument("--json", action="store_true", help="machine-readable")

    sub = add("check", _check, "Check a scenario: every mistake with its place; starts nothing.")
    sub.add_argument("file", type=Path)

    sub = add("plan", _plan, "List the cells of a scenario with ids and expected time.")
    sub.add_argument("file", type=Path)
    sub.add_argument("--only", metavar="PATTERN", help="cells whose label or id matches")
    sub.add_argument("--jobs", type=_positive, help="cells side by side")

    sub = add("run", _run, "Run a scenario: stream, score, store, report.")
    sub.add_argument("file", type=Path)
    sub.add_argument("--lab", choices=["auto", "docker", "netns", "virtual"], default="auto")
    sub.add_argument("--link", choices=["auto", "netem", "relay", "model"], default="auto")
    sub.add_argument("--out", type=Path, default=Path("results"), help="default: results/")
    sub.add_argument("--resume", type=Path, metavar="DIR", help="go on with a run that was cut off")
    sub.add_argument(
        "--other-host",
        action="store_true",
        help="go on with a run that began on another machine (its figures are then of both)",
    )
    sub.add_argument(
        "--only",
        metavar="PATTERN",
        help="cells whose codec/transport/network/receiver/utterance/repetition or id matches",
    )
    sub.add_argument("--jobs", type=_positive, help="cells side by side (default: by cores)")

    sub = add(
        "profile",
        _profile,
        "Measure what codecs cost on this machine, for the virtual lab's compute: profile.",
    )
    sub.add_argument(
        "file", type=Path, nargs="*", help="scenarios whose codecs to measure (default: the usual)"
    )
    sub.add_argument("--out", type=Path, default=Path("profile.yaml"), help="default: profile.yaml")

    sub = add(
        "probe-loss",
        _probe_loss,
        "Lose one packet in speech, codec by codec, and see for how long it is heard.",
    )
    sub.add_argument(
        "file", type=Path, nargs="?", help="scenario: its codecs, corpus, receiver (default: usual)"
    )
    sub.add_argument(
        "--codec", action="append", default=[], metavar="NAME", help="of these only (repeatable)"
    )
    sub.add_argument("--utterances", type=_positive, default=12, help="at most (default: 12)")
    sub.add_argument("--positions", type=_positive, default=4, help="per utterance (default: 4)")
    where = sub.add_mutually_exclusive_group()
    where.add_argument("--out", type=Path, default=Path("results"), help="default: results/")
    where.add_argument("--into", type=Path, metavar="RUN", help="add it to the report of a run")
    sub.add_argument("--jobs", type=_positive, help="processes (default: cores)")

    sub = add(
        "agree",
        _agree,
        "Run the same cells in several labs and on several link engines, and compare.",
    )
    sub.add_argument("file", type=Path, nargs="?", help="scenario (not needed with --with alone)")
    sub.add_argument(
        "--labs",
        type=lambda text: tuple(filter(None, text.split(","))),
        metavar="LIST",
        help="of virtual,netns/relay,netns/netem,docker/relay,docker/netem; the first is the"
        " reference (default: all that run here; with --with: none)",
    )
    sub.add_argument(
        "--with",
        dest="runs",
        type=Path,
        nargs="+",
        default=[],
        metavar="RUN",
        help="finished runs of the same scenario, made elsewhere or before",
    )
    sub.add_argument("--out", type=Path, default=Path("results"), help="default: results/")
    sub.add_argument("--only", metavar="PATTERN", help="as in harness run")
    sub.add_argument("--jobs", type=_positive, help="cells side by side (default: by cores)")

    sub = add(
        "power",
        _power,
        "Say how many utterances and seeds a scenario needs to tell its codecs from the baseline,"
        " by a pilot in the virtual lab.",
    )
    sub.add_argument("file", type=Path)
    sub.add_argument(
        "--delta", type=_above_zero, default=0.1, help="difference to be told (default: 0.1)"
    )
    sub.add_argument("--metric", help="default: what the verdict ranks by")
    sub.add_argument(
        "--power",
        type=_probability,
        default=0.8,
        help="probability of telling it (default: 0.8)",
    )
    sub.add_argument(
        "--alpha",
        type=_probability,
        default=0.05,
        help="two-sided level of all comparisons on a network together (default: 0.05)",
    )
    sub.add_argument(
        "--pilot",
        type=_pilot,
        metavar="UTTERANCESxSEEDS",
        help="default: 12x4, or as many utterances as there are",
    )
    sub.add_argument("--out", type=Path, help="keep the pilot's run there (default: keep nothing)")
    sub.add_argument("--jobs", type=_positive, help="processes (default: cores)")

    sub = add("report", _report, "Draw report.html from the tables of a finished run.")
    sub.add_argument("dir", type=Path)

    sub = add("digest", _digest, "Hash the tables of runs; say whether they hold the same.")
    sub.add_argument("dir", type=Path, nargs="+")

    sub = add("assets", _assets, "List or fetch corpora and weights.")
    sub.add_argument("action", choices=["list", "fetch"])
    sub.add_argument("name", nargs="*", help="corpora or weights (default: all corpora)")
    sub.add_argument("--accept-licence", action="store_true", help="of the weights named")

    add("schema", _schema, "Print the JSON Schema of scenario files, for editors.")

    sub = add("clean", _clean, "Remove what runs that were killed left behind, and nothing else.")
    sub.add_argument("--dry-run", action="store_true", help="only say what would go")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("expected a whole number of at least 1")
    return value


def _above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError("expected a number above 0")
    return value


def _probability(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError("expected a number between 0 and 1")
    return value


def _pilot(text: str) -> tuple[int, int]:
    utterances, _, seeds = text.partition("x")
    return _positive(utterances), _positive(seeds)


def _doctor(arguments: argparse.Namespace) -> int:
    from harness.doctor import diagnose

    findings = diagnose()
    if arguments.json:
        out.print_json(json.dumps([finding._asdict() for finding in findings]))
        return EXIT_OK
    table = Table("", "what", "found", "remedy", box=None)
    marks = {True: "[green]yes[/green]", False: "[red]no[/red]", None: "-"}
    for finding in findings:
        table.add_row(
            marks[finding.ok], finding.name, escape(finding.detail), escape(finding.remedy or "")
        )
    out.print(table)
    return EXIT_OK


def _check(arguments: argparse.Namespace) -> int:
    from harness.run import check

    loaded, cells = check(arguments.file, lambda text: err.print(escape(text)))
    out.print(
        f"{escape(str(arguments.file))}: well-formed; {len(loaded.codecs)} codecs,"
        f" {len(loaded.transports)} transports, {len(loaded.networks)} networks,"
        f" {len(loaded.receivers)} receivers, {loaded.repetitions} repetitions"
    )
    _print_questions(loaded, cells)
    return EXIT_OK


def _print_questions(wanted: Scenario, cells: Plan) -> None:
    """What the report will ask, and whether there are utterances enough; yellow where not."""
    from harness.questions import questions

    for question in questions(wanted, cells):
        style = None if question.family.enough else "yellow"
        out.print(escape(str(question)), style=style, soft_wrap=True)


def _plan(arguments: argparse.Namespace) -> int:
    from harness.run import planned
    from harness.runners import default_jobs

    wanted, cells, corpus = planned(
        arguments.file, arguments.only, lambda text: err.print(escape(text))
    )
    if corpus.warning:
        err.print(escape(corpus.warning), style="yellow")
    table = Table("id", "cell", "expected", box=None)
    for cell in cells.cells:
        table.add_row(cell.cell_id, escape(cell.label), f"{cell.expected_s:.1f} s")
    out.print(table, soft_wrap=True)
    jobs = arguments.jobs or default_jobs()
    out.print(
        f"{len(cells.cells)} cells, about {cells.expected_wall_s(jobs) / 60:.1f} min of streaming,"
        f" {jobs} side by side"
    )
    _print_questions(wanted, cells)
    return EXIT_OK


def _run(arguments: argparse.Namespace) -> int:
    from harness.run import Options, run

    options = Options(
        scenario=arguments.file,
        out=arguments.out,
        lab=arguments.lab,
        link=arguments.link,
        resume=arguments.resume,
        other_host=arguments.other_host,
        only=arguments.only,
        jobs=arguments.jobs,
    )
    with Screen() as screen:
        outcome = run(options, screen)
    counts = ", ".join(f"{n} {status}" for status, n in sorted(outcome.statuses.items()))
    out.print(f"cells: {counts or 'none'}")
    out.print(f"tables: {escape(str(outcome.directory))}", soft_wrap=True)
    if outcome.interrupted:
        err.print(
            "interrupted; go on with: harness run"
            f" {escape(str(arguments.file))} --resume {escape(str(outcome.directory))}",
            soft_wrap=True,
        )
        return EXIT_INTERRUPTED
    if outcome.report is not None:
        out.print(f"report: {escape(str(outcome.report))}", soft_wrap=True)
    if outcome.unsupported is not None:
        err.print(
            f"no cell could be run: {escape(outcome.unsupported)}", style="yellow", soft_wrap=True
        )
    return EXIT_OK if outcome.all_well else EXIT_CELLS


def _codecs(arguments: argparse.Namespace) -> int:
    from harness.assets import AssetStore
    from harness.codec_table import rows

    store = AssetStore.default()
    found = list(rows(store.weights))
    if arguments.json:
        print(json.dumps([row.as_dict() for row in found], indent=2))
        return EXIT_OK
    table = Table("codec", "tier", "rate", "frame", "delay, ms", "measured", "bitrates")
    for heading in ("conceals", "causal", "licence of code; weights", "here"):
        table.add_column(heading)
    for row in found:
        shown, about = row.as_dict(), row.about
        measured = shown.get("measured_delay_ms")
        licence = "; ".join(filter(None, (about.code_licence, about.weights_licence)))
        table.add_row(
            row.name,
            about.tier,
            units.format_frequency(shown["rate_hz"]) if row.facts else "",
            f"{shown['frame_ms']:.4g} ms" if row.facts else "",
            f"{shown['delay_ms']:.2f}" if row.facts else "",
            "" if measured is None else f"{measured:.2f}" + ("" if row.delay_holds else " (!)"),
            about.bitrates,
            "yes" if row.facts and row.facts.conceals else "",
            "yes" if about.causal else "no: chunks",
            licence,
            "no" if row.missing else "yes",
        )
    (out if out.is_terminal else Console(width=180, highlight=False)).print(table)
    for row in found:
        if row.missing:
            out.print(escape(f"{row.name}: {row.missing}"), soft_wrap=True)
    here = sum(shown.as_dict()["available"] for shown in found)
    out.print(f"{len(found)} codecs, {here} available here")
    return EXIT_OK


def _profile(arguments: argparse.Namespace) -> int:
    from harness.profiling import record_here
    from harness.virtual.profile import ENVIRONMENT

    profile = record_here(arguments.file, arguments.out, lambda text: err.print(escape(text)))
    out.print(
        f"{len(profile.records)} codecs in {escape(str(arguments.out))}; the virtual lab reads it"
        f" with {ENVIRONMENT}={escape(str(arguments.out.resolve()))}",
        soft_wrap=True,
    )
    return EXIT_OK


def _probe_loss(arguments: argparse.Namespace) -> int:
    from harness.probe_loss import Options, probe_loss
    from harness.report.propagation import COLUMNS, row_of

    options = Options(
        scenario=arguments.file,
        codecs=tuple(arguments.codec),
        utterances=arguments.utterances,
        positions=arguments.positions,
        out=arguments.out,
        into=arguments.into,
        jobs=arguments.jobs,
    )
    with Screen() as screen:
        outcome = probe_loss(options, screen)
    for name, reason in outcome.skipped.items():
        err.print(escape(f"{name} was not probed: {reason}"), style="yellow", soft_wrap=True)
    table = Table(*COLUMNS, box=None)
    for _, row in outcome.summary.iterrows():
        table.add_row(*(escape(str(value)) for value in row_of(row)))
    out.print(table)
    out.print(f"tables: {escape(str(outcome.directory))}", soft_wrap=True)
    out.print(f"page: {escape(str(outcome.page))}", soft_wrap=True)
    return EXIT_OK


def _agree(arguments: argparse.Namespace) -> int:
    from harness.agree import Wanted, agree
    from harness.report.agreement import difference, grids, verdict

    wanted = Wanted(
        scenario=arguments.file,
        labs=arguments.labs,
        runs=tuple(arguments.runs),
        out=arguments.out,
        only=arguments.only,
        jobs=arguments.jobs,
    )
    with Screen() as screen:
        outcome = agree(wanted, screen)
    for grid in grids(outcome.compared):
        table = Table(*grid.names, *(one.label for one in grid.columns), box=None)
        for names, entries in grid.rows:
            shown = map(difference, entries)
            table.add_row(
                *map(escape, names),
                *(f"[red]{one.text}[/red]" if one.bad else one.text for one in shown),
            )
        out.print(f"\n{escape(grid.leg)} minus {escape(outcome.compared.legs[0].name)}")
        out.print(table)
    out.print(f"\n{escape(verdict(outcome.compared))}", soft_wrap=True)
    out.print(f"tables: {escape(str(outcome.directory))} (agree.md, agree.html)", soft_wrap=True)
    return EXIT_CELLS if outcome.differing else EXIT_OK


def _power(arguments: argparse.Namespace) -> int:
    from harness import power
    from harness.stats.power import Aim

    wanted = power.Wanted(
        scenario=arguments.file,
        metric=arguments.metric,
        pilot=arguments.pilot,
        out=arguments.out,
        jobs=arguments.jobs,
    )
    aim = Aim(arguments.delta, arguments.power, arguments.alpha)
    with Screen() as screen:
        outcome = power.power(wanted, screen)
    out.print(escape(power.heading(outcome, aim)), soft_wrap=True)
    for pair in outcome.pairs:
        out.print(f"\n{escape(pair.label)}", style="bold", soft_wrap=True)
        if pair.comparison is None:
            out.print(escape(pair.reason or ""), style="yellow", soft_wrap=True)
            continue
        out.print(escape(power.spread(pair.comparison)), soft_wrap=True)
        table = Table(*power.NEEDS, box=None)
        for row in power.needs(pair, aim):
            table.add_row(*map(escape, row))
        out.print(table)
        out.print(power.seeds(pair, outcome.utterances, aim), soft_wrap=True)
        if found := power.simulated(pair, outcome, aim):
            out.print(found, soft_wrap=True)
    if outcome.directory is not None:
        out.print(f"\npilot: {escape(str(outcome.directory))}", soft_wrap=True)
    return EXIT_OK


def _report(arguments: argparse.Namespace) -> int:
    from harness.report import write_report

    path = write_report(arguments.dir)
    out.print(
        f"report: {escape(str(path))} ({units.readable_size(path.stat().st_size)})", soft_wrap=True
    )
    return EXIT_OK


def _digest(arguments: argparse.Namespace) -> int:
    from harness.store.digests import digests, disagreements

    found = {directory: digests(directory) for directory in arguments.dir}
    for directory, tables in found.items():
        for name, digest in tables.items():
            text = f"{digest.sha256}  {digest.rows:>9} rows  {directory / name}"
            out.print(escape(text), soft_wrap=True)
    if len(found) == 1:
        return EXIT_OK
    wrong = disagreements(found)
    for text in wrong:
        err.print(escape(text), style="yellow", soft_wrap=True)
    if not wrong:
        out.print(f"{len(found)} runs hold the same tables")
    return EXIT_CELLS if wrong else EXIT_OK


def _assets(arguments: argparse.Namespace) -> int:
    from harness import assets

    store = assets.AssetStore.default()
    if arguments.action == "list":
        table = Table("name", "kind", "files", "size", "here", "licence", box=None)
        for row in assets.list_assets(store):
            table.add_row(*(escape(str(value)) for value in row))
        out.print(table)
        return EXIT_OK
    with Screen() as screen:
        assets.fetch(arguments.name, store, screen, accept_licence=arguments.accept_licence)
    return EXIT_OK


def _schema(arguments: argparse.Namespace) -> int:
    del arguments
    from harness import scenario

    sys.stdout.write(json.dumps(scenario.schema(), indent=2) + "\n")
    return EXIT_OK


def _clean(arguments: argparse.Namespace) -> int:
    from harness.labs.leftovers import clean

    removed = clean(dry_run=arguments.dry_run)
    for thing in removed:
        out.print(("would remove " if arguments.dry_run else "removed ") + escape(thing))
    out.print(f"{len(removed)} leftovers of dead runs")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
