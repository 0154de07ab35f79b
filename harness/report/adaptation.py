"""What protects a stream and what its rate follows: transports against the plain one, and rates
over time. Pure functions of a run's tables, and what the page shows of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from harness.report import figures, links
from harness.report.sections import WAY, Drawing, Drawings, ways
from harness.report.tables import BIN_S, BY_KEY, ok_cells, scored
from harness.stats import estimate
from harness.stats.difference import against, as_family
from harness.store import Tables

COMPARED = ("pesq_wb", "concealed", "delay_p50", "wire")
"""Figures (keys of ``FIGURES``) in which transports are compared."""
RESENT = ("played", "spare", "late", "lost")
"""What became of retransmissions: ``lost`` is all that did not come."""
MOST_CELLS = 12
"""Cells of a configuration whose packets and frames are looked at."""
_FRAMES = ["cell_id", "frame", "media_ns", "kind", "payload_bytes", "target_bps", "mouth_to_ear_ns"]


@dataclass(frozen=True)
class Protection:
    """Every transport against the plain one. ``rows`` has one per network, codec, receiver and
    transport, the plain one first: ``network``, ``name``, ``plain``, ``wire``, ``overhead`` (%),
    ``fec`` (% of frames), ``resent`` (by fate, per 100 media packets; None without any) and by
    figure a row with ``mean, low, high`` and for the others ``difference`` (with ``told_apart``).
    """

    plain: str
    rows: list[dict[str, Any]]
    tested: bool


def sent(run: Tables) -> pd.DataFrame:
    """How each transport sends, over at most ``MOST_CELLS`` cells of each configuration.

    Columns: ``network, codec, receiver, transport, adapts`` (the encoder's target changes),
    ``media`` (packets), ``redundant`` (parity and retransmissions) and one per ``RESENT``.
    """
    columns = [*WAY, "transport", "adapts", "media", "redundant", *RESENT]
    found: list[dict[str, Any]] = []
    for key, cells in ok_cells(run).groupby(columns[:4]):
        ids = _some(cells)
        packets = run.packets_of(ids, ["purpose", "fate"])
        purpose = packets["purpose"].fillna("media")
        again = packets.loc[purpose == "retransmission", "fate"]
        again = again.replace("reordered", "played").where(lambda fate: fate.isin(RESENT), "lost")
        targets = run.frames_of(ids, ["cell_id", "target_bps"])
        changes = targets.groupby("cell_id")["target_bps"].nunique() > 1
        found.append(
            {
                **dict(zip(columns, key, strict=False)),
                "adapts": bool(changes.any()),
                "media": int((purpose == "media").sum()),
                "redundant": int(purpose.isin(["parity", "retransmission"]).sum()),
                **{fate: int((again == fate).sum()) for fate in RESENT},
            }
        )
    return pd.DataFrame(found, columns=columns)


def plain_transport(run: Tables, sending: pd.DataFrame) -> str | None:
    """The transport that the others are compared with: of those that send media alone, at one rate,
    the one with the fewest bits on the wire. None where there is nothing to compare."""
    means = scored(run, BY_KEY["wire"]).groupby("transport")["value"].mean()
    of = sending.groupby("transport").agg(adapts=("adapts", "any"), extra=("redundant", "sum"))
    bare = of.index[~of["adapts"] & (of["extra"] == 0)].intersection(means.index)
    if len(bare) == 0 or len(of) < 2:
        return None
    return str(min(bare, key=lambda name: (round(means[name], 3), name)))


def protection_of(
    run: Tables,
    sending: pd.DataFrame,
    networks: Sequence[str],
    transports: Sequence[str],
) -> Protection | None:
    """None where no transport protects its stream, or none is plain."""
    plain = plain_transport(run, sending)
    recovered = scored(run, _FEC).groupby("transport")["value"].mean()
    if plain is None:
        return None
    protects = sending["adapts"] | (sending["redundant"] > 0)
    if (
        not protects.any()
        and recovered.drop(plain, errors="ignore").le(recovered.get(plain, 0.0) + 1e-9).all()
    ):
        return None
    values = {key: scored(run, BY_KEY[key]) for key in COMPARED} | {"fec": scored(run, _FEC)}
    places = [plain, *(name for name in transports if name != plain)]
    tell = [axis for axis in ("codec", "receiver") if sending[axis].nunique() > 1]
    rows: list[dict[str, Any]] = []
    tested = False
    for network in networks:
        apart = _apart({k: v[v["network"] == network] for k, v in values.items()}, plain)
        mine = sending[sending["network"] == network]
        for (codec, receiver), group in mine.groupby(["codec", "receiver"]):
            for transport in places:
                here = group[group["transport"] == transport]
                if here.empty:
                    continue
                row = here.iloc[0]
                key = (str(codec), str(receiver), transport)
                means = {figure: _mean(of, network, key) for figure, of in values.items()}
                differences = {figure: apart.get((figure, *key)) for figure in COMPARED}
                tested |= any(one and one["p"] is not None for one in differences.values())
                wire, bare = (
                    means["wire"],
                    _mean(values["wire"], network, (str(codec), str(receiver), plain)),
                )
                rows.append(
                    {
                        "network": network,
                        "name": " · ".join([transport, *(str(row[axis]) for axis in tell)]),
                        "plain": transport == plain,
                        "overhead": None if not bare or wire is None else 100 * (wire / bare - 1),
                        "means": means,
                        "differences": differences,
                        "resent": [100 * int(row[fate]) / int(row["media"]) for fate in RESENT]
                        if row[list(RESENT)].sum()
                        else None,
                    }
                )
    return Protection(plain, rows, tested)


def _apart(
    values: Mapping[str, pd.DataFrame], plain: str
) -> dict[tuple[str, str, str, str], dict[str, Any]]:
    """Differences to the plain transport on one network, in pairs of one block, codec and receiver;
    all of a figure are one family. By figure, codec, receiver and transport."""
    found = {}
    for figure in COMPARED:
        raw = {
            (figure, str(codec), str(receiver), transport): one
            for (codec, receiver), cells in values[figure].groupby(["codec", "receiver"])
            for transport, one in against(cells, plain, entry="transport").items()
        }
        for key, one in as_family(raw).items():
            found[key] = {
                "mean": one.estimate.mean,
                "low": one.estimate.low,
                "high": one.estimate.high,
                "p": one.p_family,
                "told_apart": one.told_apart,
            }
    return found


def _mean(values: pd.DataFrame, network: str, key: tuple[str, str, str]) -> float | None:
    codec, receiver, transport = key
    mine = values[
        (values["network"] == network)
        & (values["codec"] == codec)
        & (values["receiver"] == receiver)
        & (values["transport"] == transport)
    ]
    found = estimate(mine["value"].tolist(), mine["utterance"].tolist())
    return None if found is None else found.mean


# --- rates over time ------------------------------------------------------------------------------


def adaptation_of(
    run: Tables, sending: pd.DataFrame, networks: Sequence[str], transports: Sequence[str]
) -> Drawings | None:
    """Bitrate, delay and what was made up along the media, where a transport changes the encoder's
    rate: that transport beside the plain one. None where none does."""
    if not sending["adapts"].any():
        return None
    plain = plain_transport(run, sending)
    adapting = set(sending.loc[sending["adapts"], "transport"])
    shown = [name for name in transports if name in adapting or name == plain]
    colours = figures.codec_colours(shown)
    cells = ok_cells(run)
    drawings = []
    for number, way, title in ways(sending[sending["adapts"]], networks, among=sending):
        mine = cells[(cells[WAY] == way).all(axis=1)]
        ids = {t: _some(mine[mine["transport"] == t]) for t in shown}
        ids = {transport: some for transport, some in ids.items() if some}
        courses = {transport: course(run, some) for transport, some in ids.items()}
        steps = links.course(mine["link_asked"].iloc[0])
        count = max(map(len, ids.values()))
        for what, draw, note in (
            ("rate", partial(rate_over_time, steps=steps),
             "payload sent; dashed: what the encoder was set to; grey: the link's rate"),
            ("delay", delay_over_time,
             "mouth to ear, median; dashed: one-way, of all that arrived"),
            ("concealed", concealed_over_time, "share of frames made up"),
        ):  # fmt: skip
            drawings.append(
                Drawing.of(
                    f"adapt{number}-{what}",
                    title,
                    [partial(draw, courses=courses, colours=colours)],
                    (4.2, 2.4),
                    f"{what} over time on {title}",
                    f"{note} (means of {count} cells)",
                )
            )
    return Drawings(drawings, list(colours.items()))


def course(run: Tables, cell_ids: Sequence[str]) -> pd.DataFrame:
    """What happens along the media, over these cells, in bins of ``BIN_S``.

    Columns: ``second`` (start of the bin), ``target_kbps``, ``sent_kbps`` (codec payloads),
    ``delay_ms`` (mouth to ear, median of what was heard), ``transit_ms`` (one-way, median of the
    media packets that arrived, late ones included), ``concealed`` (share of frames).
    """
    frames = run.frames_of(cell_ids, _FRAMES)
    frames = frames[frames["frame"].notna()]
    packets = run.packets_of(cell_ids, ["media_ns", "transit_ns", "purpose"])
    packets = packets[packets["purpose"].fillna("media") == "media"]
    starts = np.unique(frames["media_ns"].to_numpy(np.int64))
    frame_s = float(np.median(np.diff(starts))) / 1e9 if len(starts) > 1 else BIN_S
    of_frames = frames.assign(made_up=frames["kind"].isin(["concealed", "silence"])).groupby(
        _bins(frames)
    )
    return pd.DataFrame(
        {
            "target_kbps": of_frames["target_bps"].mean().astype(float) / 1000,
            "sent_kbps": 8 * of_frames["payload_bytes"].mean().astype(float) / frame_s / 1000,
            "delay_ms": of_frames["mouth_to_ear_ns"].median().astype(float) / 1e6,
            "concealed": of_frames["made_up"].mean(),
            "transit_ms": packets.groupby(_bins(packets))["transit_ns"].median().astype(float)
            / 1e6,
        }
    ).reset_index()


def _bins(rows: pd.DataFrame) -> pd.Series:
    return ((rows["media_ns"] // int(BIN_S * 1e9)).astype("int64") * BIN_S).rename("second")


def _some(cells: pd.DataFrame) -> list[str]:
    """Whole blocks in order of their hash: as good as drawn, and always the same."""
    ids: list[str] = cells.sort_values(["block", "cell_id"])["cell_id"].head(MOST_CELLS).tolist()
    return ids


def rate_over_time(
    axes: Axes,
    courses: Mapping[str, pd.DataFrame],
    colours: Mapping[str, str],
    steps: pd.DataFrame,
) -> None:
    """Bitrate of the payloads; as a grey line the link's rate where it has one."""
    _lines(axes, courses, colours, "sent_kbps", "target_kbps")
    end = axes.get_xlim()[1]
    if len(steps) and steps["rate_kbps"].notna().any():
        rates = [*steps["rate_kbps"], steps["rate_kbps"].iloc[-1]]
        axes.step([*steps["second"], end], rates, where="post", color="#7a7a7a", linewidth=1.0)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("kbit/s")


def delay_over_time(
    axes: Axes, courses: Mapping[str, pd.DataFrame], colours: Mapping[str, str]
) -> None:
    """Mouth to ear, and the one-way delay of the packets."""
    _lines(axes, courses, colours, "delay_ms", "transit_ms")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("ms")


def concealed_over_time(
    axes: Axes, courses: Mapping[str, pd.DataFrame], colours: Mapping[str, str]
) -> None:
    """Share of frames that the listener had to make up."""
    shares = {name: rows.assign(percent=100 * rows["concealed"]) for name, rows in courses.items()}
    _lines(axes, shares, colours, "percent")
    axes.set_ylim(0, max(2.0, axes.get_ylim()[1]))
    axes.set_ylabel("% of frames")


def _lines(
    axes: Axes,
    courses: Mapping[str, pd.DataFrame],
    colours: Mapping[str, str],
    column: str,
    dashed: str | None = None,
) -> None:
    draw: Callable[..., Any] = axes.plot
    for name, rows in courses.items():
        middle = rows["second"] + BIN_S / 2
        draw(middle, rows[column], color=colours[name], linewidth=1.6, label=name)
        if dashed is not None:
            draw(middle, rows[dashed], color=colours[name], linewidth=1.0, linestyle=(0, (3, 2)))
    last = max(float(rows["second"].max()) for rows in courses.values())
    axes.set_xlim(0, last + BIN_S)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.set_xlabel("media time (s)")


_FEC = BY_KEY["concealed"]._replace(
    key="fec", label="Recovered", metric="fec_ratio", meaning="share of frames from redundancy"
)
