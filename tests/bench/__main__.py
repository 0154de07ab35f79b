"""``make bench``: every speed that the project claims, measured in one run, as ratios.

Aims stand beside the figures; nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import importlib
import sys

PARTS = {
    "latency": "added one-way latency on a clean link against a bare UDP echo",
    "relay": "the relay's delay error",
    "matrix": "wall time of a matrix against its audio divided by the cells in parallel",
    "encodec": "EnCodec per frame, stateful against stateless",
    "scoring": "scoring on all cores against one",
    "virtual": "the virtual lab against the codec and metric calls that it makes",
    "claims": "false claims of null runs, and a planted difference found as often as promised",
    "pairing": "runs needed to tell two codecs apart, with the same network and without",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help="default: all")
    for name in parser.parse_args().part or PARTS:
        print(f"\n{name}: {PARTS[name]}", flush=True)
        for figure, value in importlib.import_module(f"tests.bench.bench_{name}").measure().items():
            print(f"  {figure:<58} {value}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
