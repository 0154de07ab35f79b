"""Recorded networks: what each format means, what is refused and where, and the sample files."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import struct
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.assets.store import ENV_MIRROR
from harness.errors import BadInput
from harness.network.link import Recording
from harness.network.recordings import FORMATS, MAX_BYTES, OPTIONS, describe, read
from harness.units import NS_PER_MS, NS_PER_S

MS = NS_PER_MS
fuzz = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def ms(*times: float) -> tuple[int, ...]:
    return tuple(round(time * MS) for time in times)


def mistakes(data: bytes, format: str, **options: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        read(data, format, name="F", **options)
    return str(caught.value).split("\n")


def contents(recording: Recording) -> Recording:
    """Without what tells one file from another of the same contents."""
    return replace(recording, format="", sha256="")


# --- packets --------------------------------------------------------------------------------------


def test_loss_has_a_packet_a_line() -> None:
    data = b"0\n0\r\n1\n 1 \n0\n\n"
    assert read(data, "loss", name="F") == Recording(
        "loss",
        hashlib.sha256(data).hexdigest(),
        100 * MS,
        at_ns=ms(0, 40, 80),
        loss=(0.0, 1.0, 0.0),
        interval_ns=20 * MS,
    )
    recording = read(data, "loss", name="F", interval_ns=30 * MS)
    assert (recording.duration_ns, recording.at_ns) == (150 * MS, ms(0, 60, 120))
    assert recording.interval_ns == 30 * MS
    assert recording.of_packets


def test_every_mistake_of_a_loss_file_has_its_line() -> None:
    expected = "expected 0 (arrived) or 1 (lost), got"
    assert mistakes(b"0\n2\n\n1\nlost\n", "loss") == [
        f"F:2: {expected} '2'",
        f"F:3: {expected} ''",
        f"F:5: {expected} 'lost'",
    ]
    found = mistakes(b"7\n" * 30, "loss")
    assert len(found) == 11
    assert found[9].startswith("F:10:")
    assert found[10] == "... and more of them"
    assert mistakes(b" \n", "loss") == [f"F:1: {expected} an empty file"]


Packet = tuple[float, int, int]
"""Arrival in ms, sequence number, RTP timestamp."""

START = 2**32 - 160
WRAPPED: list[Packet] = [
    (100, 65534, START),  # 100 ms after it was due
    (125, 65535, 0),  # 105
    (170, 1, 320),  # 110
    (172, 0, 160),  # 132, out of order
    (180, 1, 320),  # a copy of one that was here
    (190, 3, 640),  # 90, the fastest; 2 is missing
]


def arrivals_csv(packets: list[Packet]) -> bytes:
    lines = ["arrival_order,arrival_ms,seq,rtp_timestamp"]
    lines += [f"{n},{at},{seq},{ts}" for n, (at, seq, ts) in enumerate(packets)]
    return "\n".join(lines).encode()


def rtp(seq: int, timestamp: int, ssrc: int = 7) -> bytes:
    return struct.pack(">BBHII", 0x80, 0, seq, timestamp, ssrc)


def record(at_ms: float, packet: bytes, length: int | None = None) -> bytes:
    whole = len(packet) if length is None else length
    return struct.pack(">HHI", 8 + len(packet), whole, int(at_ms)) + packet


def rtpdump(packets: list[Packet]) -> bytes:
    head = b"#!rtpplay1.0 192.0.2.1/5004\n" + bytes(16)
    rtcp = record(101, b"\x80\xc9\x00\x01\x00\x00\x00\x07", 0)
    rtcp_on_the_same_port = record(101, b"\x80\xc8\x00\x01\x00\x00\x00\x07")
    first, *others = (record(at, rtp(seq, ts)) for at, seq, ts in packets)
    return head + first + rtcp + rtcp_on_the_same_port + b"".join(others)


@pytest.mark.parametrize(("format", "written"), [("rtpdump", rtpdump), ("arrivals", arrivals_csv)])
@pytest.mark.parametrize("options", [{}, {"clock_hz": 8000}, {"interval_ns": 20 * MS}])
def test_arrivals_through_loss_reordering_copies_and_wraps(
    format: str, written: Any, options: dict[str, int]
) -> None:
    recording = read(written(WRAPPED), format, name="F", **options)
    assert contents(recording) == Recording(
        "",
        "",
        120 * MS,
        at_ns=ms(0, 20, 40, 60, 80, 100),
        loss=(0.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        delay_ns=ms(10, 15, 42, 20, 20, 0),
        interval_ns=20 * MS,
    )


def test_columns_are_found_by_name() -> None:
    data = b"rtp_timestamp, seq ,arrival_ms\r\n0,5,10.25\r\n160,6,30.5\r\n"
    assert read(data, "arrivals", name="F").delay_ns == ms(0, 0.25)


def test_a_pause_of_the_sender_is_no_loss() -> None:
    packets = [(0, 0, 0), (20, 1, 160), (180, 3, 9 * 160), (200, 4, 10 * 160)]
    recording = read(arrivals_csv(packets), "arrivals", name="F")
    assert (recording.at_ns, recording.loss) == (ms(0, 40, 60), (0.0, 1.0, 0.0))
    assert recording.duration_ns == 220 * MS


def test_the_clock_gives_the_interval_and_the_arrivals_must_agree() -> None:
    data = arrivals_csv([(20 * n, n, 640 * n) for n in range(400)])
    assert read(data, "arrivals", name="F", clock_hz=32_000).duration_ns == 8 * NS_PER_S
    told = "give their clock or interval"
    for options in ({"clock_hz": 8_000}, {"interval_ns": 10 * MS}, {"clock_hz": 64_000}):
        (found,) = mistakes(data, "arrivals", **options)
        assert "got one every 20.0 ms by their arrivals" in found
        assert found.endswith(told)
    assert mistakes(data, "arrivals", clock_hz=32_000, interval_ns=30 * MS) == [
        "F: expected packets of 30ms, got 640 ticks of 32000 Hz: 20ms"
    ]


@pytest.mark.parametrize(
    ("packets", "told"),
    [
        ([(5, 0, 0), (4, 1, 160), (6, 2, 320)], "F:3: expected an arrival not before the last"),
        ([(0, 0, 0), (20, 1, 160), (30, 1, 161)], "F:4: expected the timestamp of the other"),
        ([(0, 0, 0), (20, 1, 160), (40, 2, 320), (60, 3, 485)], "F:5: expected a timestamp some"),
        ([(0, 0, 0), (20, 1, 160), (40, 3, 320), (60, 4, 480)], "F:4: expected a timestamp that"),
        ([(0, 0, 5), (20, 1, 5), (40, 2, 5)], "F: expected timestamps that rise"),
        ([(0, 0, 0), (1, 65536, 160)], "F:3: expected seq from 0 to 65535, got '65536'"),
        ([(0, 0, 0), (1, 1, -4)], "F:3: expected rtp_timestamp from 0 to 4294967295, got '-4'"),
        ([(0, 0, 0), (1.0, 1.5, 160)], "F:3: expected seq from 0 to 65535, got '1.5'"),
        ([(0, 0, 0)], "F: expected two packets or more, got 1"),
        (
            [(20 * n, n, 160 * n) for n in range(9999)]
            + [(280_000, 9999, 160 * 9999)]
            + [(280_000, n, 160 * n) for n in range(10_000, 14_000)],
            "F:10001: expected an arrival within 60000 ms of the fastest packet's, got 80020",
        ),
    ],
)
def test_arrivals_that_make_no_stream_are_refused(packets: list[Packet], told: str) -> None:
    assert mistakes(arrivals_csv(packets), "arrivals")[0].startswith(told)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "F:byte 0: expected a line '#!rtpplay1.0 ADDRESS/PORT', got ''"),
        (b"#!rtpplay1.0 \nshort", "F:byte 14: expected a header of 16 bytes"),
        (rtpdump(WRAPPED)[:-3], "F:byte 176: expected the length of a packet that is in the file"),
        (rtpdump(WRAPPED) + b"abc", "F:byte 196: expected a packet, got the end of the file"),
        (
            rtpdump(WRAPPED) + record(200, rtp(4, 800, ssrc=8)),
            "F:byte 196: expected one stream (SSRC 00000007); cut out one, got 00000008",
        ),
        (rtpdump(WRAPPED) + record(200, b"\x10" * 12), "F:byte 196: expected an RTP packet of"),
        (rtpdump([(0, 0, 0)]), "F: expected two RTP packets or more, got 1"),
    ],
)
def test_mistakes_of_a_dump_have_their_byte(data: bytes, told: str) -> None:
    assert mistakes(data, "rtpdump")[0].startswith(told)


# --- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_mahimahi_gives_opportunities_and_ends_at_the_last(pack: Any) -> None:
    data = pack(b"0\n5\n5\n9\n")
    recording = read(data, "mahimahi", name="F")
    assert recording.deliveries_ns == ms(0, 5, 5, 9)
    assert recording.duration_ns == 9 * MS
    assert recording.sha256 == hashlib.sha256(data).hexdigest()
    assert not recording.of_packets


def test_mistakes_of_mahimahi_files() -> None:
    assert mistakes(b"3\n2\n5\n4\n", "mahimahi") == [
        "F:2: expected a time not before the last one, got 2",
        "F:4: expected a time not before the last one, got 4",
    ]
    assert mistakes(b"0\n0\n", "mahimahi")[0].startswith("F:2: expected a last time after 0")
    for line in (b"1.5", b"-1", b"1_0", b"108000001", b"9" * 5000, b"\xd9\xa1"):
        assert mistakes(b"1\n" + line, "mahimahi")[0].startswith("F:2: expected a time in ms")


def test_what_gzip_holds_is_bounded() -> None:
    assert mistakes(gzip.compress(bytes(MAX_BYTES + 1), 1), "mahimahi") == [
        f"F: expected at most {MAX_BYTES} bytes, got {MAX_BYTES + 1}"
    ]
    whole = gzip.compress(b"1\n2\n")
    for damaged in (whole[:-5], whole[:4], whole[:-8] + bytes(8), whole + b"more"):
        assert mistakes(damaged, "mahimahi")[0].startswith("F: expected whole gzip data, got")


def opennetlab(*steps: Any, part: str = "uplink") -> bytes:
    return json.dumps({part: {"trace_pattern": steps}}).encode()


STEP = {"duration": 500, "capacity": 1000, "loss": 0, "rtt": 40, "jitter": 0}


def test_opennetlab_has_milliseconds_kilobits_shares_and_round_trips() -> None:
    outage = STEP | {"capacity": 0, "rtt": 55}
    data = opennetlab(STEP, STEP, outage, STEP | {"capacity": 2.4, "loss": 0.2, "duration": 0.5})
    recording = read(data, "opennetlab", name="F")
    assert recording.at_ns == ms(0, 1000, 1500)
    assert recording.duration_ns == ms(1500.5)[0]
    assert recording.rate_bps == (1_000_000, 0, 2400)
    assert recording.loss == (0.0, 0.0, 0.2)
    assert recording.delay_ns == ms(20, 27.5, 20)


def test_opennetlab_tells_nothing_of_what_it_lacks_and_has_two_parts() -> None:
    steps = ({"duration": 200, "capacity": 7}, {"duration": 100, "capacity": 7})
    recording = read(opennetlab(*steps, part="downlink"), "opennetlab", name="F", part="downlink")
    assert contents(recording) == Recording("", "", 300 * MS, rate_bps=(7000,))
    assert mistakes(opennetlab(*steps), "opennetlab", part="downlink") == [
        "F:$.downlink.trace_pattern: expected a list of steps, got None (the file has uplink)"
    ]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'{"uplink":\n{"trace_pattern": [}}', "F:2: expected JSON, got Expecting value"),
        (b"[" * 100_000, "F: expected JSON, got maximum recursion depth"),
        (b"\xff\xfe\xff", "F: expected JSON, got"),
        (b"3", "F:$.uplink.trace_pattern: expected a list of steps, got None"),
        (b"9" * 5000, "F: expected JSON, got"),
        (opennetlab(), "F:$.uplink.trace_pattern: expected a list of steps, got []"),
        (
            b'{"uplink": {"trace_pattern": [%s]}}' % (b"[" * 900 + b"]" * 900),
            "F:$.uplink.trace_pattern[0]: expected an object of duration, capacity, loss, rtt,"
            " jitter, got a list",
        ),
        (opennetlab(4), "F:$.uplink.trace_pattern[0]: expected an object of duration, capacity"),
        (opennetlab(STEP, {"duration": 3}), "F:$.uplink.trace_pattern[1]: expected capacity in"),
        (opennetlab({"capacity": 3}), "F:$.uplink.trace_pattern[0]: expected duration in each"),
        (opennetlab({"duration": 3}), "F:$.uplink.trace_pattern[0]: expected capacity, loss or"),
        (
            opennetlab({"duration": 3, "loss": 0}, {"duration": 3, "loss": 0, "rtt": 4}),
            "F:$.uplink.trace_pattern[1].rtt: expected nothing, as in the first step, got 4",
        ),
        (
            opennetlab(STEP, STEP | {"loss": 20}),
            "F:$.uplink.trace_pattern[1].loss: expected a number from 0 to 1, got 20",
        ),
        (
            opennetlab(STEP | {"jitter": 5}),
            "F:$.uplink.trace_pattern[0].jitter: expected 0, got 5",
        ),
        (opennetlab(STEP | {"ecn": 5}), "F:$.uplink.trace_pattern[0]: expected an object of"),
        (
            opennetlab(STEP | {"duration": 10**8}, STEP | {"duration": 10**8}),
            "F:$.uplink.trace_pattern: expected 30 hours or less, got 200000000 ms",
        ),
        *(
            (
                opennetlab(STEP | {"duration": bad}),
                "F:$.uplink.trace_pattern[0].duration: expected a number from 1e-06 to 1.08e+08",
            )
            for bad in (0, -1, float("nan"), float("inf"), True, "200", None, 10**400)
        ),
    ],
)
def test_mistakes_of_opennetlab_have_their_path(data: bytes, told: str) -> None:
    assert mistakes(data, "opennetlab")[0].startswith(told)


# --- our own tables -------------------------------------------------------------------------------

TABLE = b"""loss,time_s,delay_ms,rate_bps
0,0,50,1000000
,0.5,50,
0.25,2,,0
1, 2.5 ,12.5,
,3,,
"""


def parquet(data: bytes) -> bytes:
    header, *rows = csv.reader(io.StringIO(data.decode()))
    columns = zip(header, zip(*rows, strict=True), strict=True)
    table = {name: [float(c) if c.strip() else None for c in cells] for name, cells in columns}
    sink = io.BytesIO()
    pq.write_table(pa.table(table), sink)
    return sink.getvalue()


@pytest.mark.parametrize(("format", "data"), [("csv", TABLE), ("parquet", parquet(TABLE))])
def test_our_tables_hold_steps_and_end_with_a_time(format: str, data: bytes) -> None:
    recording = read(data, format, name="F")
    assert recording.at_ns == ms(0, 2000, 2500)
    assert recording.duration_ns == 3 * NS_PER_S
    assert recording.loss == (0.0, 0.25, 1.0)
    assert recording.delay_ns == ms(50, 50, 12.5)
    assert recording.rate_bps == (1_000_000, 0, 0)
    assert recording.format == format


def test_our_tables_may_lack_columns() -> None:
    recording = read(b"\xef\xbb\xbftime_s,delay_ms\r\n0,30\r\n1.25,\r\n", "csv", name="F")
    assert contents(recording) == Recording("", "", 1250 * MS, delay_ns=ms(30))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", ["F:1: expected a header and rows, got no rows"]),
        (b"time_s,loss\n", ["F:1: expected a header and rows, got no rows"]),
        (
            b"time,loss\n0,0\n1,\n",
            [
                "F:1: expected columns out of time_s, rate_bps, delay_ms, loss, got 'time'",
                "F:1: expected a column time_s and one of rate_bps, delay_ms, loss,"
                " got 'time,loss'",
            ],
        ),
        (
            b"time_s\n0\n",
            ["F:1: expected a column time_s and one of rate_bps, delay_ms, loss, got 'time_s'"],
        ),
        (b"loss,loss\n0,0\n", ["F:1: expected different names of columns, got 'loss,loss'"]),
        (
            b"time_s,loss\n0,0\n1\n2,0,0\n3,\n",
            [
                "F:3: expected 2 values, as in the header, got 1",
                "F:4: expected 2 values, as in the header, got 3",
            ],
        ),
        (
            b"time_s,loss\n0,0\n1,0.5\n",
            [
                "F:3: expected no loss in the last row, which holds the time of the end alone,"
                " got '0.5'"
            ],
        ),
        (
            b"time_s,loss\n0,\n,2\n2,1_0\n3,nan\n4,x\n5,\n",
            [
                "F:3: expected time_s: seconds from 0 to 108000, got ''",
                "F:2: expected loss: a share from 0 to 1, got ''",
                "F:3: expected loss: a share from 0 to 1, got '2'",
                "F:4: expected loss: a share from 0 to 1, got '1_0'",
                "F:5: expected loss: a share from 0 to 1, got 'nan'",
                "F:6: expected loss: a share from 0 to 1, got 'x'",
            ],
        ),
        (
            b"time_s,loss\n0,0\n2,1\n\n2,0\n1,0\n3,\n",
            [
                "F:5: expected a time after the one before, got '2'",
                "F:6: expected a time after the one before, got '1'",
            ],
        ),
        (b"time_s,loss\n1,0\n2,\n", ["F:2: expected time_s 0 in the first row, got '1'"]),
        (
            b"time_s,loss\n0,0\n",
            [
                "F:1: expected two rows or more: one at time 0 and one with the time of the end"
                " alone, got 1"
            ],
        ),
        (b"time_s,loss\n0,0\n1,\xff\n", ["F:3: expected plain ASCII text, got '\\\\xff'"]),
        (b'time_s,loss\n0,"0\n', ["F:2: expected comma-separated values, got unexpected end"]),
    ],
)
def test_mistakes_of_a_table_have_their_line(data: bytes, told: list[str]) -> None:
    assert "\n".join(mistakes(data, "csv")).startswith("\n".join(told))


def test_mistakes_of_a_parquet_have_their_row() -> None:
    data = parquet(b"time_s,loss\n0,0\n1,7\n2,\n")
    assert mistakes(data, "parquet") == [
        "F:row 2: expected loss: a share from 0 to 1, got 7.0",
    ]
    assert mistakes(parquet(TABLE)[:-9], "parquet")[0].startswith("F: expected a Parquet file")
    sink = io.BytesIO()
    pq.write_table(pa.table({"time_s": ["0", "1"], "loss": [True, None]}), sink)
    assert mistakes(sink.getvalue(), "parquet") == [
        "F: expected numbers in column 'time_s', got string",
        "F: expected numbers in column 'loss', got bool",
    ]


# --- every format ---------------------------------------------------------------------------------

VALID: dict[str, bytes] = {
    "loss": b"0\n1\n1\r\n0\n",
    "rtpdump": rtpdump(WRAPPED),
    "arrivals": arrivals_csv(WRAPPED),
    "mahimahi": b"0\n5\n5\n9\n",
    "opennetlab": opennetlab(STEP, STEP | {"capacity": 0, "loss": 0.5}),
    "csv": TABLE,
    "parquet": parquet(TABLE),
}


def test_options_go_only_with_their_formats() -> None:
    values: dict[str, Any] = {"interval_ns": 20 * MS, "clock_hz": 8000, "part": "downlink"}
    for option, value in values.items():
        for format in FORMATS.keys() - OPTIONS[option]:
            (found,) = mistakes(VALID[format], format, **{option: value})
            assert found.startswith(f"F: expected {option} only with ")
    assert mistakes(b"0", "loss", interval_ns=0) == [
        "F: expected a packet interval from 100us to 10s, got 0 ns"
    ]
    assert mistakes(b"", "arrivals", clock_hz=1)[0].startswith("F: expected an RTP clock from")
    assert mistakes(b"", "opennetlab", part="both") == [
        "F: expected part: uplink or downlink, got both"
    ]
    assert mistakes(b"", "pcap")[0].startswith("F: expected a format out of loss, rtpdump")


def test_recordings_are_bounded() -> None:
    assert mistakes(b"0\n" * 10_801, "loss", interval_ns=10 * NS_PER_S)[0] == (
        "F: expected a recording of up to 30 hours, got 108010s"
    )
    assert mistakes(b"\n" * 5_000_001, "csv") == ["F: expected at most 5000000 lines, got more"]
    assert mistakes(bytes(MAX_BYTES + 1), "parquet")[0].startswith("F: expected at most")
    assert mistakes(b" " * 17_000_000, "opennetlab")[0].startswith("F: expected at most 16000000")
    far = [(0, 0, 0), (1, 1, 1), (2, 2, 2**31 - 1)]
    assert mistakes(arrivals_csv(far), "arrivals")[0].startswith("F: expected at most 5000000")


def assert_sound(recording: Recording) -> None:
    assert recording.at_ns[0] == 0
    assert all(a < b for a, b in pairwise((*recording.at_ns, recording.duration_ns)))
    assert 0 < recording.duration_ns <= 30 * 3600 * NS_PER_S
    for column in (recording.loss, recording.delay_ns, recording.rate_bps):
        assert column is None or len(column) == len(recording.at_ns)
        assert column is None or min(column) >= 0
    assert max(recording.loss or (0,)) <= 1
    times = recording.deliveries_ns or (0, recording.duration_ns)
    assert all(a <= b for a, b in pairwise((0, *times)))
    assert times[-1] == recording.duration_ns
    assert describe(recording).startswith(recording.format)


@pytest.mark.parametrize("format", list(FORMATS))
@given(data=st.binary(max_size=300))
@fuzz
def test_any_bytes_are_read_or_refused(format: str, data: bytes) -> None:
    for prefix in (b"", b"\x1f\x8b\x08\x00", b"#!rtpplay1.0 \n" + bytes(16), b"time_s,loss\n0,"):
        try:
            recording = read(prefix + data, format, name="F")
        except BadInput:
            continue
        assert_sound(recording)


Edit = tuple[float, int, bytes]
"""Where, as a share of the file; how many bytes go; which come."""
edits = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.integers(0, 6),
        st.binary(max_size=4)
        | st.sampled_from([b"\n", b",", b"-1", b"1e999", b"0", b"nan", b"\xff\xff\xff\xff"]),
    ),
    max_size=4,
)


@pytest.mark.parametrize("format", list(FORMATS))
@given(changes=edits)
@fuzz
def test_damaged_files_are_read_or_refused(format: str, changes: list[Edit]) -> None:
    data = VALID[format]
    for share, gone, come in changes:
        at = int(share * len(data))
        data = data[:at] + come + data[at + gone :]
    try:
        recording = read(data, format, name="F")
    except BadInput as error:
        lines = str(error).split("\n")
        assert all(line.startswith("F") and ": expected " in line for line in lines[:10])
        return
    assert_sound(recording)


def test_descriptions_fit_a_line() -> None:
    described = {name: describe(read(data, name, name="F")) for name, data in VALID.items()}
    table = "3.0 s, mean 0.67 Mbit/s (median 1.00), 20.8 % lost, longest outage 1000 ms"
    assert described == {
        "loss": "loss: 0.1 s, 50.0 % lost, longest outage 40 ms",
        "rtpdump": "rtpdump: 0.1 s, 16.7 % lost, longest outage 20 ms, delay 0 to 42 ms",
        "arrivals": "arrivals: 0.1 s, 16.7 % lost, longest outage 20 ms, delay 0 to 42 ms",
        "mahimahi": "mahimahi: 0.0 s, mean 5.33 Mbit/s, longest outage 5 ms",
        "opennetlab": "opennetlab: 1.0 s, mean 0.50 Mbit/s (median 0.00), 25.0 % lost,"
        " longest outage 500 ms, delay 20 to 20 ms",
        "csv": f"csv: {table}, delay 12 to 50 ms",
        "parquet": f"parquet: {table}, delay 12 to 50 ms",
    }


# --- the samples ----------------------------------------------------------------------------------

SAMPLES = {
    "loss/plc_challenge_1214_is_lost.txt": "loss: 9.4 s, 25.0 % lost, longest outage 100 ms",
    "loss/plc_challenge_2307_is_lost.txt": "loss: 9.4 s, 6.6 % lost, longest outage 180 ms",
    "loss/opus_ng_high_is_lost.txt": "loss: 220.9 s, 69.6 % lost, longest outage 820 ms",
    "mahimahi/ATT-LTE-driving-2016.up.gz": "120.0 s, mean 1.91 Mbit/s, longest outage 4061 ms",
    "mahimahi/ATT-LTE-driving-2016.down.gz": "120.0 s, mean 4.56 Mbit/s, longest outage 1123 ms",
    "mahimahi/ATT-LTE-driving.up.gz": "1012.5 s, mean 0.83 Mbit/s, longest outage 78319 ms",
    "mahimahi/ATT-LTE-driving.down.gz": "786.1 s, mean 5.17 Mbit/s, longest outage 1515 ms",
    "mahimahi/TMobile-LTE-driving.down.gz": "474.6 s, mean 12.77 Mbit/s, longest outage 1058 ms",
    "mahimahi/TMobile-LTE-short.up.gz": "140.0 s, mean 13.32 Mbit/s, longest outage 724 ms",
    "mahimahi/TMobile-LTE-short.down.gz": "140.0 s, mean 16.70 Mbit/s, longest outage 917 ms",
    "mahimahi/Verizon-LTE-short.up.gz": "140.0 s, mean 5.95 Mbit/s, longest outage 1718 ms",
    "mahimahi/Verizon-LTE-short.down.gz": "140.0 s, mean 5.03 Mbit/s, longest outage 1447 ms",
    "opennetlab/4G_3mbps.json": "60.9 s, mean 30.20 Mbit/s (median 2.68), longest outage 798 ms",
    "opennetlab/4G_500kbps.json": "106.0 s, mean 0.50 Mbit/s (median 0.50), no outage",
    "opennetlab/4G_700kbps.json": "106.6 s, mean 0.68 Mbit/s (median 0.67), no outage",
    "opennetlab/WIRED_200kbps.json": "222.9 s, mean 0.20 Mbit/s (median 0.18), 0.0 % lost",
    "opennetlab/WIRED_35mbps.json": "61.4 s, mean 352.59 Mbit/s (median 33.90)",
    "opennetlab/WIRED_900kbs.json": "57.6 s, mean 0.86 Mbit/s (median 0.86), 0.0 % lost",
    "opennetlab/trace_example.json": "0.0 % lost, no outage, delay 36 to 53 ms",
    "opennetlab/trace_loss_0dot1.json": "opennetlab: 0.2 s, mean 1.00 Mbit/s (median 1.00), 10.0 %",
    "opennetlab/trace_loss_pattern_2.json": "1.0 s, mean 1.00 Mbit/s (median 1.00), 10.0 % lost",
    "opennetlab/trace_loss_pattern_3.json": "1.5 s, mean 1.00 Mbit/s (median 1.00), 10.0 % lost",
    "opennetlab/trace_loss_pattern_4.json": "2.0 s, mean 1.00 Mbit/s (median 1.00), 22.5 % lost",
    "opennetlab/trace_rtt_200.json": "delay 100 to 100 ms",
    "opennetlab/trace_rtt_pattern_2.json": "delay 100 to 200 ms",
    "opennetlab/trace_rtt_pattern_3.json": "delay 100 to 100 ms",
    "opennetlab/trace_rtt_pattern_4.json": "delay 100 to 250 ms",
    "rtpdump/hrtf_g722_1C_48_jitterT2.rtp": "23.8 s, 1.3 % lost, longest outage 40 ms, delay 0",
    "rtpdump/hrtf_g722_1C_48_jitterT2.arrivals.csv": "arrivals: 23.8 s, 1.3 % lost",
    "rtpdump/HRTF_pcm16wb_jitter.arrivals.csv": "arrivals: 23.8 s, 1.6 % lost",
}
"""All recorded networks of the mirror, and what their catalogue says of them."""


@pytest.fixture(scope="module")
def traces() -> Path:
    folder = Path(os.environ.get(ENV_MIRROR, "")) / "traces"
    if ENV_MIRROR not in os.environ or not folder.is_dir():
        pytest.skip(f"needs {ENV_MIRROR}, a folder with traces/ in it")
    return folder


def sample(traces: Path, name: str, **options: Any) -> Recording:
    format = "arrivals" if name.endswith(".csv") else name.split("/")[0]
    return read((traces / name).read_bytes(), format, name=name, **options)


@pytest.mark.parametrize("name", list(SAMPLES))
def test_samples_are_what_their_catalogue_says(traces: Path, name: str) -> None:
    recording = sample(traces, name)
    assert SAMPLES[name] in describe(recording)
    assert_sound(recording)


def test_no_sample_is_forgotten(traces: Path) -> None:
    found = {f"{path.parent.name}/{path.name}" for path in traces.glob("*/*")}
    assert found - {"mahimahi/README"} == set(SAMPLES)


def test_a_dump_and_the_arrivals_read_out_of_it_agree(traces: Path) -> None:
    name = "rtpdump/hrtf_g722_1C_48_jitterT2"
    dump = sample(traces, f"{name}.rtp", clock_hz=32_000)
    table = sample(traces, f"{name}.arrivals.csv")
    assert contents(dump) == contents(table)
    assert dump.duration_ns == 1192 * 20 * MS
    assert dump.loss is not None
    ends = (*dump.at_ns[1:], dump.duration_ns)
    steps = zip(dump.at_ns, ends, dump.loss, strict=True)
    assert sum(end - at for at, end, lost in steps if lost) == (1192 - 1176) * 20 * MS


def test_the_clock_of_a_sample_is_not_that_of_its_namesake(traces: Path) -> None:
    """G.722.1C has 32 kHz; G.722 has 8 kHz, by which packets of this file would be 80 ms long."""
    with pytest.raises(BadInput, match=r"every 80ms, got one every 19\.9 ms by their arrivals"):
        sample(traces, "rtpdump/hrtf_g722_1C_48_jitterT2.rtp", clock_hz=8_000)
