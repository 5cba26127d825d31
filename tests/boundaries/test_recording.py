"""Laws about recordings: what was written is read, and damage costs what it hits and nothing else."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.adapters.memory import MemoryConfig, MemoryReceiver, MemorySender
from nexus.adapters.packing import bytes_packer, bytes_unpacker
from nexus.boundaries._recorder import Recorder
from nexus.boundaries._recording import Recorded, Recording, RecordingError
from nexus.boundaries._recording_writer import RecordingWriter, open_recording
from nexus.boundaries._replay import Replay
from nexus.errors import OpenError
from nexus.testing import DiskFault, MemoryDisk, virtual_time

SECOND = 1_000_000_000
ITEMS = [
    Recorded(b"one", 100, 0, 0, {"topic": "a"}),
    Recorded(b"", 200, SECOND, -10, {}),
    Recorded(bytes(range(256)), 300, 3 * SECOND, 5, {"topic": "b", "qos": 1}),
]


@attrs.define
class Bytes:
    """A file in memory that cannot fail."""

    content: bytes

    def read(self, offset: int, size: int) -> bytes:
        return self.content[offset : offset + size]

    def size(self) -> int:
        return len(self.content)


def content_of(items: Sequence[Recorded] = ITEMS) -> bytes:
    """Write a recording and return its bytes."""
    disk = MemoryDisk()
    writer = RecordingWriter(disk.open("r", create=True), {"url": "mem://a"})
    writer.write(items)
    return disk.open("r").read(0, 2**30)


def read(content: bytes) -> tuple[list[Recorded], Recording]:
    """Read a recording."""
    found = Recording(Bytes(content))
    return list(found), found


def test_what_is_written_is_read() -> None:
    """Payload, time, offset, priority and meta come back, and so does the header."""
    items, found = read(content_of())
    assert items == ITEMS
    assert found.header.about["url"] == "mem://a"
    assert not found.is_damaged
    assert list(found) == items


@given(
    st.binary(max_size=300), st.integers(-(2**63), 2**63 - 1), st.dictionaries(st.text(), st.integers(0, 9))
)
def test_any_frame_comes_back(payload: bytes, priority: int, meta: dict[str, int]) -> None:
    """Whatever the bytes, the priority and the meta are, they come back."""
    item = Recorded(payload, 1, 2, priority, meta)
    try:
        content = content_of([item])
    except RecordingError:
        pytest.fail("refused")
    assert read(content)[0] == [item]


def test_meta_without_a_form_is_left_out() -> None:
    """What JSON cannot say of the transport's words is left out; the rest stays."""
    items, _ = read(content_of([Recorded(b"x", 0, 0, 0, {"ack": object(), "topic": "a", "raw": b"1"})]))
    assert items[0].meta == {"topic": "a"}


def test_a_recording_may_hold_a_recording() -> None:
    """Records inside of a payload are not taken for records, even when what holds them is damaged."""
    outer = content_of([Recorded(content_of(), 0, 0), Recorded(b"last", 0, 0)])
    at = outer.index(b"one")
    items, found = read(outer[:at] + b"0" + outer[at + 1 :])
    assert [item.payload for item in items] == [b"last"]
    assert found.lost == 1


def honest(content: bytes, whole: bytes) -> None:
    """Check that nothing is read that was not written, in its order, or that the declared error comes."""
    try:
        items, found = read(content)
    except RecordingError:
        return
    rest = iter(ITEMS)
    assert all(item in rest for item in items)
    assert found.is_damaged or content == whole[: len(content)]


def flips(step: int) -> None:
    whole = content_of()
    for bit in range(0, len(whole) * 8, step):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        honest(bytes(content), whole)


def test_a_flipped_bit_makes_no_wrong_record() -> None:
    """With one bit flipped, every record read is one that was written, and the damage is told."""
    flips(97)


@pytest.mark.slow
def test_every_flipped_bit_makes_no_wrong_record() -> None:
    """The same for every bit."""
    flips(1)


def cuts(step: int) -> None:
    whole = content_of()
    ends = [len(content_of(ITEMS[:count])) for count in range(len(ITEMS) + 1)]
    for size in range(0, len(whole), step):
        honest(whole[:size], whole)
        if size >= ends[0]:
            items, found = read(whole[:size])
            count = sum(end <= size for end in ends) - 1
            assert (items, found.cut, found.lost) == (ITEMS[:count], size - ends[count], 0)


def test_a_cut_file_keeps_what_is_before_the_cut() -> None:
    """Cut at any byte, all whole records are read, and the bytes of the torn one are told."""
    cuts(97)


@pytest.mark.slow
def test_a_file_cut_at_every_byte_keeps_what_is_before() -> None:
    """The same for every byte."""
    cuts(1)


def test_damage_in_the_middle_costs_what_it_hits() -> None:
    """Bytes destroyed inside one record cost that record; those around it are read."""
    items = [Recorded(bytes([number]) * 50, number, number) for number in range(20)]
    content = content_of(items)
    at = content.index(bytes([7]) * 50)
    found_items, found = read(content[:at] + bytes(20) + content[at + 20 :])
    assert found_items == items[:7] + items[8:]
    assert (found.lost, found.cut) == (1, 0)
    assert found.skipped > 50


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\x89NXREC\r\n", bytes(100), b"\x89PNG\r\n\x1a\n" + bytes(40)]
)
def test_other_files_are_refused(content: bytes) -> None:
    """What is no recording is an error that says so."""
    with pytest.raises(RecordingError, match="it is no recording"):
        read(content)


def test_a_size_that_lies_allocates_nothing() -> None:
    """A length beyond the file or the limit is damage, not a request for memory."""
    content = content_of([ITEMS[0]])
    rng = random.Random(1)
    for _ in range(200):
        noise = content + rng.randbytes(rng.randrange(200))
        items, found = read(noise)
        assert items == [ITEMS[0]]
        assert found.cut == len(noise) - len(content)


def test_append_goes_on_after_the_last_whole_record() -> None:
    """A continued recording loses its torn tail only, and counts on."""
    disk = MemoryDisk()
    RecordingWriter(disk.open("r", create=True), {}).write(ITEMS[:2])
    disk.open("r").append(b"torn")
    writer = RecordingWriter(disk.open("r"), {})
    assert (writer.recovered, writer.continued) == (4, (200, SECOND))
    writer.write(ITEMS[2:])
    items, found = read(disk.open("r").read(0, 9999))
    assert items == ITEMS
    assert not found.is_damaged


@pytest.mark.parametrize("size", range(0, 50, 7))
def test_append_to_a_file_that_never_began(size: int) -> None:
    """A file whose writer died in the header is begun anew."""
    disk = MemoryDisk()
    disk.open("r", create=True).append(content_of([])[:size])
    RecordingWriter(disk.open("r"), {}).write(ITEMS)
    assert read(disk.open("r").read(0, 9999))[0] == ITEMS


@pytest.mark.parametrize("room", range(0, 500, 13))
def test_a_full_disk_leaves_whole_records(room: int) -> None:
    """Whatever room there is, what was written is whole, and the writer says how much that is."""
    disk = MemoryDisk(capacity=len(content_of([])) + room)
    writer = RecordingWriter(disk.open("r", create=True), {"url": "mem://a"})
    try:
        writer.write(ITEMS)
    except OSError:
        assert writer.written < len(ITEMS)
    items, found = read(disk.open("r").read(0, 9999))
    assert items == ITEMS[: writer.written]
    assert not found.is_damaged


@pytest.mark.parametrize("fault", [DiskFault.IO_ERROR, DiskFault.NO_SPACE, DiskFault.SHORT_WRITE])
@pytest.mark.parametrize("call", range(3, 12))
def test_a_failing_disk_leaves_no_wrong_record(fault: DiskFault, call: int) -> None:
    """With any call failing, what can be read is what the writer says it wrote."""
    disk = MemoryDisk(faults={call: fault})
    writer = RecordingWriter(disk.open("r", create=True), {})
    for item in ITEMS:
        try:
            writer.write([item])
        except OSError:
            break
    disk.faults.clear()
    assert read(disk.open("r").read(0, 9999))[0] == ITEMS[: writer.written]


def test_a_file_is_overwritten_only_when_told(tmp_path: Path) -> None:
    """A file that is there is refused, continued or emptied, as asked; it is its owner's alone."""
    path = str(tmp_path / "r")
    for mode, expected in [("new", 3), ("append", 6), ("force", 3)]:
        writer = open_recording(path, mode, {})  # type: ignore[arg-type]
        with pytest.raises(OpenError, match="by another"):
            open_recording(path, "append", {})
        writer.write(ITEMS)
        writer.close()
        assert len(read(Path(path).read_bytes())[0]) == expected
        assert Path(path).stat().st_mode & 0o777 == 0o600
    with pytest.raises(OpenError, match="--append"):
        open_recording(path, "new", {})


def test_other_files_are_not_continued(tmp_path: Path) -> None:
    """A file that is no recording is refused and stays as it is."""
    (tmp_path / "notes").write_text("something else entirely, and longer than a header")
    with pytest.raises(OpenError, match="no recording"):
        open_recording(str(tmp_path / "notes"), "append", {})
    assert (tmp_path / "notes").read_text().startswith("something else")


# Recording and replaying, in virtual time.


def batches_of(items: Sequence[Recorded]) -> Callable[[], AsyncIterator[Sequence[Recorded]]]:
    """Give records as a replay reads them, two at a time."""

    async def batches() -> AsyncIterator[Sequence[Recorded]]:
        for begin in range(0, len(items), 2):
            yield items[begin : begin + 2]

    return batches


@attrs.define(eq=False)
class Sent:
    """A sender that notes what it is sent and when; its transport has topics unless told otherwise."""

    seen: list[tuple[float, bytes, int, Any]] = attrs.field(factory=list)

    async def send(self, data: bytes, *, priority: int = 0, **options: Any) -> None:
        now = asyncio.get_running_loop().time()
        self.seen.append((now, data, priority, options.get("topic")))


def evenly(count: int, step: int = SECOND // 10) -> list[Recorded]:
    return [Recorded(b"%d" % number, 0, number * step, number % 3) for number in range(count)]


@virtual_time
async def test_the_pace_is_kept_at_any_speed() -> None:
    """Each frame goes at its own moment, divided by the speed; the pace does not drift."""
    for speed in (0.5, 1.0, 8.0):
        sent = Sent()
        begin = asyncio.get_running_loop().time()
        await Replay(batches_of(evenly(1000)), sent, speed=speed).run()  # type: ignore[arg-type]
        moments = [(when - begin) * speed for when, *_ in sent.seen]
        assert moments == pytest.approx([number / 10 for number in range(1000)], abs=1e-6)


@virtual_time
async def test_a_late_frame_makes_no_other_late() -> None:
    """When the sender held one frame up, the following ones are at their moments again."""

    class Slow(Sent):
        async def send(self, data: bytes, *, priority: int = 0, **options: Any) -> None:
            if data == b"3":
                await asyncio.sleep(0.25)
            await super().send(data, priority=priority, **options)

    sent = Slow()
    replay = Replay(batches_of(evenly(10)), sent)  # type: ignore[arg-type]
    await replay.run()
    assert [round(when, 3) for when, *_ in sent.seen][3:] == [0.55, 0.55, 0.55, 0.6, 0.7, 0.8, 0.9]
    assert replay.late == pytest.approx(0.15)


@virtual_time
async def test_a_part_a_filter_and_rounds() -> None:
    """Only what is inside of the limits and passes the filter is sent, as often as asked."""
    sent = Sent()
    replay = Replay(
        batches_of(evenly(10)),
        sent,  # type: ignore[arg-type]
        begin=SECOND // 5,
        end=SECOND // 2 + 1,
        rounds=2,
        where=lambda payload, meta: 12 // (int(payload) - 3) > 0,
    )
    await replay.run()
    assert [data for _, data, *_ in sent.seen] == [b"4", b"5"] * 2
    assert (replay.given, replay.left_out) == (4, 16)
    assert [round(when, 3) for when, *_ in sent.seen] == [0.0, 0.1, 0.1, 0.2]


@virtual_time
async def test_priorities_and_topics_are_restored() -> None:
    """A frame goes with the priority and the topic it came with."""
    sent = Sent()
    await Replay(batches_of(ITEMS), sent, speed=None).run()  # type: ignore[arg-type]
    assert [each[1:] for each in sent.seen] == [
        (item.payload, item.priority, item.meta.get("topic")) for item in ITEMS
    ]


async def recorded(path: Path, items: Sequence[bytes], **options: Any) -> Recorder:
    """Record what is sent over memory."""
    config = MemoryConfig(topic=str(path))
    writer = open_recording(str(path), options.pop("mode", "new"), {"pack": "json"})
    try:
        async with (
            MemoryReceiver(config, bytes_unpacker) as receiver,
            MemorySender(config, bytes_packer) as sender,
        ):
            recorder = Recorder(receiver, writer, count=len(items), **options)
            async with asyncio.TaskGroup() as group:
                group.create_task(recorder.run(), name="recorder")
                for number, item in enumerate(items):
                    await asyncio.sleep(0.5 if number else 0)
                    await sender.send(item)
    finally:
        writer.close()
    return recorder


@virtual_time
async def test_what_is_sent_is_recorded_and_replayed(tmp_path: Path) -> None:
    """From a sender to a file to another receiver: the same bytes, in order, at their pace."""
    items = [b"%d" % number for number in range(20)]
    recorder = await recorded(tmp_path / "r", items, priority=lambda payload, meta: -int(payload))
    found, about = read((tmp_path / "r").read_bytes())
    assert (recorder.written, recorder.bytes) == (20, sum(map(len, items)))
    assert [item.payload for item in found] == items
    assert [item.priority for item in found] == [-number for number in range(20)]
    assert [item.offset / 1e9 for item in found] == pytest.approx([number / 2 for number in range(20)])
    assert about.header.about["pack"] == "json"
    config = MemoryConfig(topic="again")
    async with (
        MemoryReceiver(config, bytes_unpacker) as receiver,
        MemorySender(config, bytes_packer) as sender,
    ):
        begin = asyncio.get_running_loop().time()
        replay = Replay(batches_of(found), sender, speed=5.0)
        await replay.run()
        assert asyncio.get_running_loop().time() - begin == pytest.approx(9.5 / 5)
        assert [(await receiver.receive())[0] for _ in items] == items
        assert replay.given == 20


@virtual_time
async def test_a_continued_recording_counts_its_time_on(tmp_path: Path) -> None:
    """Offsets never go back when a recording is continued."""
    await recorded(tmp_path / "r", [b"1", b"2", b"3"])
    await recorded(tmp_path / "r", [b"4", b"5"], mode="append")
    found, _ = read((tmp_path / "r").read_bytes())
    offsets = [item.offset for item in found]
    assert [item.payload for item in found] == [b"1", b"2", b"3", b"4", b"5"]
    assert offsets == sorted(offsets)


@virtual_time
async def test_a_rule_that_fails_ranks_a_frame_as_ordinary(tmp_path: Path) -> None:
    """A frame of which the rule makes nothing is kept with priority 0, and counted."""
    recorder = await recorded(tmp_path / "r", [b"1", b"x"], priority=lambda payload, meta: int(payload))
    found, _ = read((tmp_path / "r").read_bytes())
    assert [item.priority for item in found] == [1, 0]
    assert recorder.unranked == 1


class Acknowledging(MemoryReceiver[bytes]):
    """Notes what was accepted, and what the file held then."""

    accepted: list[int]

    def accept(self, meta: dict[str, Any]) -> None:
        self.accepted.append(self.disk_size())

    disk_size: Callable[[], int]


async def test_a_frame_is_accepted_when_it_is_in_the_file() -> None:
    """Nothing is accepted before it is written; on a full disk, what is not written is not accepted."""
    disk = MemoryDisk(capacity=400)
    writer = RecordingWriter(disk.open("r", create=True), {})
    receiver = Acknowledging(MemoryConfig(topic="ack"), bytes_unpacker)
    receiver.accepted = []
    receiver.disk_size = lambda: disk.size("r")
    async with receiver, MemorySender(MemoryConfig(topic="ack"), bytes_packer) as sender:
        for _ in range(20):
            await sender.send(bytes(20))
        await sender.flush()
        with pytest.raises(OSError, match="No space left"):
            await Recorder(receiver, writer).run()
    items, found = read(disk.open("r").read(0, 9999))
    assert len(items) == len(receiver.accepted) == writer.written > 0
    assert min(receiver.accepted) > len(content_of([])) - 20
    assert not found.is_damaged


async def test_stop_writes_what_has_come() -> None:
    """After `stop` what the receiver has by then is still written."""
    disk = MemoryDisk()
    writer = RecordingWriter(disk.open("r", create=True), {})
    config = MemoryConfig(topic="stop")
    async with (
        MemoryReceiver(config, bytes_unpacker) as receiver,
        MemorySender(config, bytes_packer) as sender,
    ):
        recorder = Recorder(receiver, writer)
        async with asyncio.TaskGroup() as group:
            group.create_task(recorder.run(), name="recorder")
            for number in range(500):
                await sender.send(b"%d" % number)
            await sender.flush()
            recorder.stop()
    assert [item.payload for item in read(disk.open("r").read(0, 2**20))[0]] == [
        b"%d" % n for n in range(500)
    ]
