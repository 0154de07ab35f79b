"""The table of docs/architecture.md, held against the imports of every file."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "harness"

COMMON = {"errors", "units", "fields", "records", "threads", "lateness"}
"""Imported by every room; they import each other and nothing else of the harness."""

ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "units": set(),
    "fields": set(),
    "records": set(),
    "threads": set(),
    "lateness": set(),
    "control": set(),
    "clockfacts": set(),
    "linux": set(),
    "litert": set(),
    "scenario": {
        "assets.items",
        "codecs",
        "media.settings",
        "network.link",
        "network.recordings",
        "sinks.settings",
        "transports.base",
    },
    "plan": {"scenario", "assets.items", "store.schema"},
    "assets": set(),
    "network": {"control", "clockfacts", "linux"},
    "media": {"codecs.base", "litert"},
    "codecs": {"litert"},
    "transports": {"media", "linux"},
    "endpoint": {"media", "codecs", "transports", "control", "clockfacts", "linux"},
    "labs": {"network", "endpoint", "control", "linux"},
    "stats": set(),
    "score": {"assets.level", "stats"},
    "sinks": {"score"},
    "store": {"clockfacts"},
    "report": {"store", "score", "stats"},
    "cell": {
        "control",
        "plan",
        "codecs.base",
        "endpoint.sender",
        "labs.base",
        "labs.capacity",
        "media",
        "network",
        "transports",
    },
    "virtual": {"codecs.base", "endpoint.sender", "media", "network", "transports.base"},
    "virtual_matrix": {
        "assets",
        "cell",
        "codecs",
        "labs.virtual",
        "plan",
        "scenario",
        "score",
        "sinks",
        "store",
        "virtual",
    },
    "codec_table": {"codecs"},
    "profiling": {"assets", "codecs", "scenario", "store", "virtual"},
    "resume": {"assets", "plan", "scenario"},
    "runners": {
        "assets",
        "cell",
        "codecs",
        "labs",
        "plan",
        "scenario",
        "score",
        "store",
        "virtual_matrix",
    },
    "scoring": {"runners", "scenario", "score", "sinks", "store"},
    "run": {
        "resume",
        "runners",
        "scoring",
        "assets",
        "labs",
        "plan",
        "report",
        "scenario",
        "score",
        "store",
    },
    "questions": {"plan", "scenario", "stats"},
    "agree": {
        "assets",
        "labs",
        "network.probe",
        "report",
        "run",
        "runners",
        "scenario",
        "stats",
        "store",
    },
    "probe_loss": {
        "assets",
        "cell",
        "codecs",
        "endpoint.sender",
        "media.settings",
        "network.link",
        "network.trace",
        "network.fitting",
        "report",
        "scenario",
        "score",
        "store",
        "transports.base",
        "virtual",
    },
    "power": {"assets", "plan", "run", "runners", "scenario", "score", "stats", "store"},
    "doctor": {"assets", "codecs", "labs", "network"},
    "cli": {
        "agree",
        "assets",
        "codec_table",
        "doctor",
        "labs",
        "power",
        "probe_loss",
        "plan",
        "profiling",
        "questions",
        "report",
        "run",
        "runners",
        "scenario",
        "stats",
        "store",
        "virtual",
    },
}
"""What each room may import of the others: a room, or one file of it. All else is forbidden."""

LIBRARIES: dict[str, set[str]] = {
    "fields": {"pydantic"},
    "records": {"numpy"},
    "lateness": {"numpy"},
    "litert": {"ai_edge_litert", "numpy"},
    "scenario": {"pydantic", "pydantic_core", "yaml"},
    "assets": {"numpy", "scipy", "soundfile", "soxr", "yaml"},
    "network": {"numpy", "pyarrow", "pyroute2", "scipy"},
    "media": {"ai_edge_litert", "numpy", "zfec"},
    "codecs": {
        "ai_edge_litert",
        "av",
        "einops",
        "encodec",
        "moshi",
        "numpy",
        "pydantic",
        "pydantic_core",
        "safetensors",
        "snac",
        "torch",
        "transformers",
    },
    "transports": {"aioquic", "aiortc", "cryptography", "websockets"},
    "endpoint": {"numpy"},
    "labs": {"docker", "requests"},
    "score": {
        "numpy",
        "onnxruntime",
        "pandas",
        "pebble",
        "pesq",
        "pystoi",
        "scipy",
        "soundfile",
        "soxr",
        "visqol",
    },
    "stats": {"numpy", "pandas", "scipy"},
    "sinks": {
        "numpy",
        "onnxruntime",
        "safetensors",
        "soundfile",
        "soxr",
        "torch",
        "transformers",
    },
    "store": {"numpy", "pandas", "psutil", "pyarrow", "soundfile"},
    "report": {"jinja2", "markupsafe", "matplotlib", "numpy", "pandas", "soundfile"},
    "cell": {"numpy"},
    "virtual": {"numpy", "yaml"},
    "virtual_matrix": {"numpy"},
    "codec_table": {"numpy"},
    "profiling": {"numpy"},
    "agree": {"pandas"},
    "power": {"pandas"},
    "probe_loss": {"numpy", "pandas"},
    "doctor": {"psutil"},
    "cli": {"rich"},
}
"""What each room may import from outside the standard library."""

HEAVY = {"ai_edge_litert", "av", "docker", "encodec", "matplotlib", "onnxruntime", "torch"}
SOCKETS = {"socket", "socketserver", "select", "selectors", "asyncio", "http", "urllib.request"}
CLOCKS = {"time", "datetime", "sched"}
CHANCE = {"secrets", "uuid"}
SEEDED = {
    "random": {"Random"},
    "np.random": {"default_rng", "Generator", "RandomState", "get_state", "seed", "set_state"},
}
"""What may be used of the modules that draw numbers; all else draws from a state that is shared."""
UNPICKLING = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}

PURE = {
    "media": SOCKETS | CLOCKS | CHANCE | {"threading"},
    "codecs": SOCKETS | CLOCKS | CHANCE | {"threading"},
    "plan": SOCKETS | CLOCKS | CHANCE | {"os", "pathlib"},
    "network.link": SOCKETS | CLOCKS | CHANCE | {"pyroute2"},
    "network.model": SOCKETS | CLOCKS | CHANCE | {"pyroute2", "threading"},
    "network.proof": SOCKETS | CLOCKS | CHANCE | {"pyroute2"},
    "network.recordings": SOCKETS | CLOCKS | CHANCE | {"pyroute2", "os", "pathlib"},
    "virtual": SOCKETS | CLOCKS | CHANCE | {"threading"},
    "score": SOCKETS | CHANCE,
    "stats": SOCKETS | CLOCKS | CHANCE | {"os", "pathlib", "threading"},
    "sinks": SOCKETS | CLOCKS | CHANCE | {"threading"},
    "report": SOCKETS | CHANCE,
}
"""Modules of the standard library (and beyond) that a room or file does without."""


class Import(NamedTuple):
    name: str
    line: int
    lazy: bool
    """Inside a function, or for the type checker only."""


class File(NamedTuple):
    module: str
    """Without the leading ``harness.``."""
    imports: list[Import]
    tree: ast.Module

    @property
    def room(self) -> str:
        return self.module.split(".")[0]


def imports_of(tree: ast.Module) -> Iterator[Import]:
    late = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the room they come from"
            assert node.module is not None
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (Import(name, node.lineno, node in late) for name in names)


def read(path: Path) -> File:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    module = ".".join(part for part in parts if part != "__init__")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return File(module, list(imports_of(tree)), tree)


FILES = [read(path) for path in sorted(PACKAGE.rglob("*.py"))]
every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.module or "__init__")


def within(name: str, allowed: set[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


@every_file
def test_rooms_import_only_what_the_table_allows(file: File) -> None:
    allowed = COMMON | {file.room} | ROOMS.get(file.room, set()) | {"__version__"}
    for name, line, _ in file.imports:
        top, _, rest = name.partition(".")
        if top == "harness" and rest:
            assert within(rest, allowed), f"{file.module}:{line} imports {name}"


@every_file
def test_libraries_stay_in_their_rooms(file: File) -> None:
    allowed = LIBRARIES.get(file.room, set())
    for name, line, _ in file.imports:
        top = name.partition(".")[0]
        if top != "harness" and top not in sys.stdlib_module_names:
            assert top in allowed, f"{file.module}:{line} imports {name}"


@every_file
def test_pure_rooms_have_no_clock_no_socket_and_no_chance(file: File) -> None:
    forbidden = set().union(*(bad for room, bad in PURE.items() if within(file.module, {room})))
    for name, line, _ in file.imports:
        assert not within(name, forbidden), f"{file.module}:{line} imports {name}"


@every_file
def test_chance_is_seeded(file: File) -> None:
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in SEEDED:
            where = f"{file.module}:{node.lineno} uses {ast.unparse(node)}"
            assert node.attr in SEEDED[ast.unparse(node.value)], where
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            (".Random", ".RandomState", ".default_rng")
        ):
            assert node.args, f"{file.module}:{node.lineno} draws without a seed"


@every_file
def test_nothing_unpickles(file: File) -> None:
    for name, line, _ in file.imports:
        assert name.partition(".")[0] not in UNPICKLING, f"{file.module}:{line} imports {name}"


@every_file
def test_codecs_load_their_libraries_when_made(file: File) -> None:
    """A scenario is checked and planned without torch or libav being loaded."""
    for name, line, lazy in file.imports:
        if file.room in {"codecs", "cli", "scenario", "plan", "endpoint", "sinks"}:
            heavy = name.partition(".")[0] in HEAVY
            assert lazy or not heavy, f"{file.module}:{line} imports {name} at once"


def test_the_image_holds_what_the_agents_import() -> None:
    """Followed through every import, lazy ones included, from the modules that containers run."""
    requirements = (ROOT / "images" / "requirements.txt").read_text(encoding="utf-8").split("\n")
    without_deps = (ROOT / "requirements.no-deps.lock").read_text(encoding="utf-8").split("\n")
    installed = {line.partition("==")[0] for line in (*requirements, *without_deps)}
    by_module = {file.module: file for file in FILES}
    todo, seen = ["endpoint.agent", "network.agent", "network.endpoint_setup"], set()
    while todo:
        module = todo.pop()
        if module in seen or module not in by_module:
            continue
        seen.add(module)
        todo.append(module.rpartition(".")[0])
        for name, line, _ in by_module[module].imports:
            top, _, rest = name.partition(".")
            if top == "harness":
                todo += [rest, rest.rpartition(".")[0]]
            elif top not in sys.stdlib_module_names:
                told = f"{module}:{line} imports {top}, which images/requirements.txt lacks"
                assert top.removesuffix("_core").replace("_", "-") in installed, told
    assert "endpoint.sender" in seen


def test_every_room_is_in_the_table() -> None:
    rooms = {file.room for file in FILES} - {""}
    assert rooms == set(ROOMS), "a new room gets a row here and in docs/architecture.md"
    told = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for folder in PACKAGE.iterdir():
        if (folder / "__init__.py").exists():
            assert f"| `{folder.name}/` |" in told


def test_the_table_has_no_circles() -> None:
    seen: set[str] = set()

    def walk(room: str, trail: tuple[str, ...]) -> None:
        assert room not in trail, " -> ".join([*trail, room])
        if room not in seen:
            for other in ROOMS[room]:
                walk(other.partition(".")[0], (*trail, room))
            seen.add(room)

    for room in ROOMS:
        walk(room, ())
