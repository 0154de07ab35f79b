"""Tracks and broadcasts, as written and as planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.assets.items import ItemRef
from harness.cell import hears_others, served, together
from harness.errors import BadInput, Unsupported
from harness.plan import Cell, plan
from harness.scenario import load

TEXT = """\
name: t
controls: false
corpus: [librispeech]
codecs: [{codec: opus, name: o}, g722]
transports: [udp, {transport: udp, tracks: 4}]
networks:
  - {name: near, broadcast: hall, both: {delay: 10ms}}
  - {name: far, broadcast: hall, both: {delay: 90ms}}
  - {name: other, both: {delay: 1ms}}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(text, "utf-8")
    return path


def cells(tmp_path: Path, text: str = TEXT) -> dict[tuple[str, str, str], Cell]:
    item = ItemRef("anna", "librispeech", "s", None, "speech", "0" * 64, 1.0)
    return {cell.names[:3]: cell for cell in plan(load(written(tmp_path, text)), [item]).cells}


def test_a_broadcast_is_a_cell_a_receiver_with_one_sender(tmp_path: Path) -> None:
    found = cells(tmp_path)
    near, far = found["o", "udp", "near"], found["o", "udp", "far"]
    assert [branch.network.name for branch in near.branches] == ["near", "far"]
    assert near.branches == far.branches
    assert [branch.seed for branch in near.branches] == [near.seed, far.seed]
    assert near.seed != far.seed
    assert near.sender_seed == far.sender_seed
    assert found["o", "udp", "other"].branches == ()


def test_listeners_of_one_sender_are_streamed_at_once(tmp_path: Path) -> None:
    text = TEXT.replace("tracks: 4}", "tracks: 4}, tcp")
    text += "exclude: [{network: far, codec: g722}]\n"
    found = cells(tmp_path, text)
    near, far = found["o", "udp", "near"], found["o", "udp", "far"]
    groups = together(found.values())
    assert sorted(cell.cell_id for group in groups for cell in group) == sorted(
        cell.cell_id for cell in found.values()
    )
    assert [set(group) for group in groups if len(group) > 1] == [{near, far}]
    assert served(near)[0] == near
    assert served(far)[1] == far
    assert [cell.seed for cell in served(far)] == [near.seed, far.seed]
    # A receiver that the rules leave out is served all the same: it may have a say.
    alone = served(found["g722", "udp", "near"])
    assert [cell.network.name for cell in alone] == ["near", "far"]
    for lonely in (found["o", "tcp", "near"], found["o", "udp-tracks4", "near"]):
        assert served(lonely) == (lonely,)
    assert not hears_others(near)


def test_a_sender_that_cannot_hear_all_receivers_says_so(tmp_path: Path) -> None:
    found = cells(tmp_path, TEXT.replace("tracks: 4", "tracks: 4, nack: 1"))
    (name,) = {transport for _, transport, _ in found} - {"udp"}
    with pytest.raises(Unsupported, match="need datagrams, and one track"):
        hears_others(found["o", name, "near"])
    assert not hears_others(found["o", name, "other"])


def test_a_receiver_more_makes_other_cells_of_a_broadcast_alone(tmp_path: Path) -> None:
    more = TEXT + "  - {name: third, broadcast: hall, both: {delay: 2ms}}\n"
    before, after = cells(tmp_path), cells(tmp_path, more)
    assert before["o", "udp", "near"].cell_id != after["o", "udp", "near"].cell_id
    assert before["o", "udp", "other"].cell_id == after["o", "udp", "other"].cell_id


def test_tracks_name_their_transport_and_make_a_cell_another(tmp_path: Path) -> None:
    found = cells(tmp_path)
    one, four = found["o", "udp", "other"], found["o", "udp-tracks4", "other"]
    assert (one.transport.tracks, four.transport.tracks) == (1, 4)
    assert "tracks" not in one.transport.configuration
    assert four.transport.configuration["tracks"] == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "{transport: udp, tracks: 4}",
            "{transport: tcp, tracks: 4}",
            '"tracks" beside udp or rtp',
        ),
        ("tracks: 4", "tracks: 17", "tracks: expected .*16"),
        ("far, broadcast: hall,", "far,", 'two networks or more with broadcast "hall", got one'),
        (
            "  - {name: other",
            "sweeps:\n  - {name: d, axis: network, entry: far, set: both.delay, values: [1ms]}\n#",
            "no broadcast in a swept network",
        ),
    ],
)
def test_mistakes(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(BadInput, match=message):
        load(written(tmp_path, TEXT.replace(old, new)))
