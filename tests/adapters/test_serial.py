"""Laws of the serial adapter, over pseudo-terminals and both drivers."""

import asyncio
import fcntl
import os
import sys
import termios
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lag import Lag
from null_modem import NullModem

from nexus.adapters import _serial_drivers, _serial_port, open_receiver, open_sender
from nexus.adapters._config import option_table
from nexus.adapters._serial_port import _desks
from nexus.adapters.packing import bytes_packer, bytes_unpacker, text_unpacker
from nexus.adapters.serial import SerialConfig, SerialReceiver, SerialSender
from nexus.errors import ConfigError, EndOfData, LinkDown, PackerError
from nexus.testing import virtual_time

opened: list[tuple[str, int]] = []
"""What this process has opened while `watch_opens` is entered: the path and the thread."""
watching: list[bool] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if watching and event == "open" and "port-" in str(arguments[0]):
        opened.append((str(arguments[0]), threading.get_ident()))


sys.addaudithook(_audit)


@contextmanager
def watch_opens() -> Iterator[list[tuple[str, int]]]:
    """Note which ports are opened, and by which thread."""
    opened.clear()
    watching.append(True)
    try:
        yield opened
    finally:
        watching.clear()


@pytest.fixture(params=["pyserial", "serialx"])
def driver(request: pytest.FixtureRequest) -> str:
    """Each of the drivers."""
    if request.param == "serialx" and _serial_drivers.serialx is None:
        if os.environ.get("NEXUS_CI"):
            pytest.fail("serialx is not installed")
        pytest.skip("serialx is not installed")
    name: str = request.param
    return name


@pytest.fixture
async def cable(tmp_path: Path) -> AsyncIterator[NullModem]:
    """A null modem."""
    async with asyncio.timeout(55), NullModem(tmp_path) as cable:
        yield cable


@pytest.fixture
def sender(cable: NullModem, driver: str) -> Callable[..., SerialSender[Any]]:
    """Makes senders of bytes at one end of the cable."""

    def make(port: str = cable.a, **options: Any) -> SerialSender[Any]:
        return SerialSender(
            SerialConfig(port=port, **{"driver": driver, "retry_cap": 0.05} | options), bytes_packer
        )

    return make


@pytest.fixture
def receiver(cable: NullModem, driver: str) -> Callable[..., SerialReceiver[Any]]:
    """Makes receivers of bytes at the other end."""

    def make(port: str = cable.b, **options: Any) -> SerialReceiver[Any]:
        config = SerialConfig(port=port, **{"driver": driver, "retry_cap": 0.05} | options)
        return SerialReceiver(config, bytes_unpacker)

    return make


def descriptors() -> list[str]:
    """Name the terminals that this process holds open."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if target.startswith(("/dev/pts", "/dev/ptmx")):
            found.append(target)
    return sorted(found)


async def until(condition: Callable[[], bool], half: Any) -> None:
    """Wait until something holds; looks at every change of the link, and every 5 ms."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.005)


async def test_lines_come_whole(sender: Any, receiver: Any) -> None:
    """A line is one item, however it was cut on its way, and its end is not part of it."""
    async with receiver() as lines, sender() as out:
        await lines.connected(5)
        await out.send(b"hello")
        assert await lines.receive() == (b"hello", {"port": lines.config.port})
        await out.send(b"")
        await out.send(b"x" * 100_000)
        assert (await lines.receive())[0] == b""
        assert (await lines.receive())[0] == b"x" * 100_000


async def test_the_link_says_that_it_is_up(sender: Any, receiver: Any) -> None:
    """After the start the link is up; after the stop it is stopped."""
    for half in (sender(), receiver()):
        await half.connected(5)
        assert half.link.state == "up"
        assert half.link.ups == 1
        await half.stop()
        assert half.link.state == "stopped"


async def test_stopped_halves_start_again(sender: Any, receiver: Any) -> None:
    """Data flows after each of several restarts, and between them the port is closed."""
    before = descriptors()
    lines, out = receiver(), sender()
    for number in range(5):
        await lines.connected(5)
        await out.connected(5)
        await out.send(b"%d" % number)
        assert (await lines.receive())[0] == b"%d" % number
        await out.stop()
        await lines.stop()
        assert descriptors() == before


async def test_ports_are_opened_in_threads(sender: Any, receiver: Any) -> None:
    """No port is opened by the thread of the event loop, which a slow device would hold up."""
    with watch_opens() as seen:
        async with receiver() as lines, sender() as out:
            await lines.connected(5)
            await out.connected(5)
    assert len(seen) == 2
    assert threading.get_ident() not in [thread for _, thread in seen]


async def test_halves_of_a_process_share_the_port(cable: NullModem, sender: Any, receiver: Any) -> None:
    """A sender and receivers on one port open it once; it stays open until the last is stopped."""
    with watch_opens() as seen:
        async with receiver(cable.b) as far, sender(cable.b) as back:
            await far.connected(5)
            async with receiver(cable.a) as one, receiver(cable.a) as two:
                async with sender(cable.a) as out:
                    await out.deliver(b"there")
                    assert (await far.receive())[0] == b"there"
                await one.connected(5)
                await two.connected(5)
                await back.send(b"back")
                assert (await one.receive())[0] == (await two.receive())[0] == b"back"
                assert sorted(path for path, _ in seen) == [cable.a, cable.b]
    assert _desks == {}
    assert os.ttyname(cable.slaves[0]) in descriptors()
    assert len(descriptors()) == 4


async def test_a_stop_while_it_opens_leaves_nothing(cable: NullModem, sender: Any, receiver: Any) -> None:
    """Stopped at whatever moment after the start, halves that share a port leave no descriptor open."""
    before = descriptors()
    for turns in range(40):
        out, lines = sender(cable.a), receiver(cable.a)
        await out.start()
        await lines.start()
        for _ in range(turns):
            await asyncio.sleep(0.0005 if turns % 2 else 0)
        await out.stop()
        await lines.stop()
    await until(lambda: descriptors() == before, None)
    assert _desks == {}


async def test_who_shares_a_port_agrees_on_it(sender: Any, receiver: Any) -> None:
    """A second half with another baud rate fails for good, and says why; the first goes on."""
    async with sender(baudrate=9600) as out:
        await out.connected(5)
        other = receiver(out.config.port, baudrate=19200)
        with pytest.raises(ConfigError, match="same settings"):
            await other.receive()
        assert other.link.state == "failed"
        assert out.link.state == "up"
        await other.stop()


@pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.slow)])
async def test_unplug_and_replug(cable: NullModem, sender: Any, receiver: Any, times: int) -> None:
    """Each time the device goes the link is down with a reason, and when it is back data flows again."""
    before = len(descriptors())
    states: list[Any] = []
    async with receiver() as lines, sender() as out, receiver(cable.a) as own:
        lines.on_link(states.append)
        for number in range(times):
            for half in (lines, out, own):
                await half.connected(5)
            await out.send(b"%d" % number)
            assert (await lines.receive())[0] == b"%d" % number
            cable.unplug()
            for half in (lines, out, own):
                await until(lambda half=half: half.link.state == "down", half)
            cable.plug()
        for half in (lines, out, own):
            await half.connected(5)
        assert lines.counts.ups == out.counts.ups == times + 1
    downs = {state.error for state in states if state.state == "down"}
    assert any("gone" in error or "disconnected" in error for error in downs)
    assert len(descriptors()) == before


async def test_frames_wait_for_the_device(cable: NullModem, sender: Any, receiver: Any) -> None:
    """What is sent while the device is away goes when it is back, in order."""
    async with sender() as out, receiver() as lines:
        await out.connected(5)
        cable.unplug()
        await until(lambda: out.link.state == "down", out)
        for number in range(100):
            await out.send(b"%d" % number)
        cable.plug()
        cable.hold()  # what comes before the far end is open is thrown away
        await lines.connected(5)
        cable.go()
        for number in range(100):
            assert (await lines.receive())[0] == b"%d" % number
        assert out.counts.items == 100
        assert out.counts.dropped == {}


async def test_a_device_that_is_not_there(cable: NullModem, sender: Any) -> None:
    """The link says that there is no such device, is tried again, and comes up when there is."""
    cable.unplug()
    async with sender() as out:
        await until(lambda: out.link.state == "down" and out.link.attempts > 2, out)
        assert "there is no such device" in out.link.error
        cable.plug()
        await out.connected(5)


async def test_a_device_that_is_not_for_us(cable: NullModem, sender: Any) -> None:
    """The link says that there is no permission and which group helps, and comes up when there is one."""
    fds = [os.ttyname(fd) for fd in cable.slaves]
    for path in fds:
        os.chmod(path, 0)
    before = os.geteuid()
    out = sender(fds[0])
    if before == 0:
        os.seteuid(65534)
    try:
        await out.start()
        await until(lambda: out.link.state == "down" and out.link.attempts > 2, out)
    finally:
        os.seteuid(before)
    assert "no permission" in out.link.error
    assert "dialout" in out.link.error
    for path in fds:
        os.chmod(path, 0o620)
    await out.connected(5)
    await out.stop()


async def test_a_device_that_is_in_use(cable: NullModem, sender: Any) -> None:
    """A port that is locked is not shared with other programs, and is opened when it is free."""
    fcntl.flock(cable.slaves[0], fcntl.LOCK_EX)
    async with sender() as out, sender(cable.b, exclusive=False) as free:
        await free.connected(5)
        await until(lambda: out.link.state == "down", out)
        assert "in use" in out.link.error
        fcntl.flock(cable.slaves[0], fcntl.LOCK_UN)
        await out.connected(5)


async def test_retrying_can_be_off(cable: NullModem, sender: Any, receiver: Any) -> None:
    """With ``retry="never"`` a lost device ends the half, with the reason."""
    async with receiver(retry="never") as lines:
        await lines.connected(5)
        cable.unplug()
        with pytest.raises(LinkDown):
            await lines.receive()
        assert lines.link.state == "failed"


async def test_bytes_pass_as_they_are(tmp_path: Path, driver: str) -> None:
    """The port is set to raw: nothing is echoed, translated or acted on, whatever it was set to before."""
    every = bytes(range(256))
    options: dict[str, Any] = {"frame": "fixed", "size": 256, "driver": driver}
    async with asyncio.timeout(20), NullModem(tmp_path, raw=False) as cable:
        a, b = (SerialConfig(port=port, **options) for port in (cable.a, cable.b))
        async with (
            SerialReceiver(a, bytes_unpacker) as at_a,
            SerialReceiver(b, bytes_unpacker) as at_b,
            SerialSender(a, bytes_packer) as from_a,
            SerialSender(b, bytes_packer) as from_b,
        ):
            for half in (at_a, at_b, from_a, from_b):
                await half.connected(5)
            await from_a.send(every)
            await from_b.send(every[::-1])
            assert (await at_b.receive())[0] == every
            assert (await at_a.receive())[0] == every[::-1]
            assert at_a.counts.waiting == at_b.counts.waiting == 0
            local = termios.tcgetattr(cable.slaves[0])[3]
            assert not local & (termios.ECHO | termios.ICANON | termios.ISIG)


@pytest.mark.parametrize(
    ("options", "frames"),
    [
        ({"terminator": b"\r\n"}, [b"a\nb", b"\r", b"c"]),
        ({"terminator": b"END"}, [b"E", b"EN", b"x"]),
        ({"frame": "fixed", "size": 3}, [b"abc", b"\n\n\n", b"def"]),
        ({"frame": "length"}, [b"", b"\n" * 1000, bytes(70_000)]),
        ({"frame": "length", "width": 2, "byteorder": "little"}, [b"ab", b"\x00\x01", b""]),
    ],
)
async def test_frames_of_every_kind(sender: Any, receiver: Any, options: Any, frames: list[bytes]) -> None:
    """Lines with any end, frames of one size and frames led by their length come out as they went in."""
    async with receiver(**options) as lines, sender(**options) as out:
        await lines.connected(5)
        for frame in frames:
            await out.send(frame)
        assert [(await lines.receive())[0] for _ in frames] == frames


async def test_a_frame_that_holds_the_terminator_is_refused(sender: Any) -> None:
    """Where the other side could not tell the frames apart, nothing is sent."""
    async with sender() as out:
        with pytest.raises(PackerError, match="terminator"):
            await out.send(b"two\nlines")
        assert out.counts.waiting == 0


async def test_text_is_written_in_the_encoding(cable: NullModem, receiver: Any, driver: str) -> None:
    """Text that a packer gives goes in the encoding of the config; what that cannot say is refused."""
    config = SerialConfig(port=cable.a, encoding="latin-1", driver=driver)
    async with receiver() as lines, SerialSender(config, str) as out:
        await lines.connected(5)
        await out.send("5 µm")
        assert (await lines.receive())[0] == b"5 \xb5m"
        with pytest.raises(PackerError, match="latin-1"):
            await out.send("5 €")


@pytest.mark.parametrize("size", [4_000_000, pytest.param(100_000_000, marks=pytest.mark.slow)])
async def test_a_line_without_end_costs_itself(
    cable: NullModem, sender: Any, receiver: Any, size: int
) -> None:
    """A line of 100 MB is skipped and counted once, and the next one is received."""
    async with receiver() as lines, sender(max_size=size) as out:
        await lines.connected(5)
        await out.send(b"x" * size)
        await out.send(b"next")
        assert (await lines.receive())[0] == b"next"
        assert lines.counts.bad == {"size": 1}


async def test_bytes_that_are_no_text_cost_their_line(cable: NullModem, driver: str) -> None:
    """A line that is not UTF-8 is one bad frame; the lines around it are good."""
    config = SerialConfig(port=cable.b, driver=driver)
    async with SerialReceiver(config, text_unpacker) as lines:
        await lines.connected(5)
        cable.inject(1, b"one\n\xff\xfe\xc3\x28\ntwo\n")
        got = [(await anext(lines))[0] for _ in range(2)]
        assert got == ["one", "two"]
        assert lines.counts.bad == {"unpack": 1}


async def test_a_frame_that_was_cut_is_counted(cable: NullModem, receiver: Any, sender: Any) -> None:
    """Half a line at an unplug is no frame, and does not begin the first one after it."""
    async with receiver() as lines, sender() as out:
        await lines.connected(5)
        cable.inject(1, b"whole\nhal")
        assert (await lines.receive())[0] == b"whole"
        cable.unplug()
        await until(lambda: lines.link.state == "down", lines)
        assert lines.counts.bad == {"cut": 1}
        cable.plug()
        await lines.connected(5)
        await out.connected(5)
        await out.send(b"new")
        assert (await lines.receive())[0] == b"new"


async def test_a_length_that_is_none_opens_the_line_anew(
    cable: NullModem, receiver: Any, sender: Any
) -> None:
    """After a length that cannot be, nobody knows where frames begin: the port is opened again, and works."""
    options = {"frame": "length", "max_size": 1000}
    async with receiver(**options) as lines, sender(**options) as out:
        await lines.connected(5)
        cable.inject(1, b"\xff\xff\xff\xff")
        await until(lambda: lines.counts.ups == 2, lines)
        assert lines.counts.bad == {"size": 1}
        await out.send(b"good")
        assert (await lines.receive())[0] == b"good"


async def test_a_line_that_takes_nothing_is_given_up(cable: NullModem, sender: Any) -> None:
    """After ``write_timeout`` the link is down and says so; without one it waits."""
    cable.hold()
    async with (
        sender(write_timeout=0.05, flush_timeout=0) as out,
        sender(cable.b, flush_timeout=0) as patient,
    ):
        await out.send(b"x" * 100_000)
        await patient.send(b"x" * 100_000)
        await until(lambda: out.link.state == "down", out)
        assert "took nothing for 0.05 s" in out.link.error
        assert patient.link.state == "up"
        assert out.counts.items == patient.counts.items == 0


async def test_stop_is_bounded_on_a_full_line(cable: NullModem, sender: Any) -> None:
    """A line that takes nothing holds a stop up for ``flush_timeout``; what was not sent is counted."""
    cable.hold()
    out = sender(flush_timeout=0.05)
    await out.connected(5)
    for _ in range(50):
        await out.send(b"x" * 1000)
    async with asyncio.timeout(2):
        await out.stop()
    assert out.counts.items + out.counts.dropped["stopped"] == 50


async def test_urgent_frames_overtake_on_the_line(cable: NullModem, sender: Any, receiver: Any) -> None:
    """What waits for a slow line is overtaken by what is urgent, after what the line has taken."""
    async with receiver() as lines, sender() as out:
        await lines.connected(5)
        await out.connected(5)
        cable.hold()
        for _ in range(500):
            await out.send(b"x" * 200)
        await out.send(b"urgent", priority=-1)
        cable.go()
        place = 0
        while (await lines.receive())[0] != b"urgent":
            place += 1
    assert place < 400


@virtual_time
async def test_a_slow_line_is_not_overfilled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the line goes on as long as it takes bytes, and gives the port up when it takes none.

    Pseudo-terminals never say what they hold, so this line is told by a script.
    """
    says = iter([2000, 1500, 700, *[600] * 1000])
    monkeypatch.setattr(_serial_port, "unsent", lambda transport: next(says))
    port = _serial_port.Port(SerialConfig(baudrate=9600).line())
    monkeypatch.setattr(port, "_transport", asyncio.Transport())
    monkeypatch.setattr(_serial_port, "_abort", lambda transport: None)
    await port.drained(below=1000, timeout=5)
    assert next(says) == 600
    assert port.error is None
    await port.drained(timeout=5)
    assert "took nothing for 5 s" in str(port.error)


async def exchange(out: Any, back: Any, total: int) -> int:
    """Send numbered frames with checksums from one half to another; return how many."""
    count = total // 100
    body = bytes(ord("a") + n % 26 for n in range(80))

    async def send() -> None:
        for number in range(count):
            frame = b"%010d" % number + body
            await out.send(frame + b"%010d" % zlib.crc32(frame))

    async with asyncio.TaskGroup() as group:
        group.create_task(send())
        number = 0
        while number < count:
            for frame, _ in await back.receive_many():
                assert int(frame[-10:]) == zlib.crc32(frame[:-10])
                assert int(frame[:10]) == number
                number += 1
    return count


@pytest.mark.parametrize("total", [1_000_000, pytest.param(20_000_000, marks=pytest.mark.slow)])
async def test_no_byte_is_lost_at_full_speed(
    cable: NullModem, sender: Any, receiver: Any, total: int
) -> None:
    """Both directions at once, as fast as it goes: every frame arrives once, whole and in order."""
    options: dict[str, Any] = {"baudrate": 115200}
    async with (
        receiver(cable.a, **options) as at_a,
        receiver(cable.b, **options) as at_b,
        sender(cable.a, **options) as from_a,
        sender(cable.b, **options) as from_b,
    ):
        for half in (at_a, at_b, from_a, from_b):
            await half.connected(5)
        async with asyncio.TaskGroup() as group:
            group.create_task(exchange(from_a, at_b, total))
            group.create_task(exchange(from_b, at_a, total))
        for half in (at_a, at_b, from_a, from_b):
            assert half.counts.items == total // 100
            assert not half.counts.bad
            assert not half.counts.dropped


async def busy_life(cable: NullModem, sender: Any, receiver: Any, rounds: int) -> None:
    """Open, write at full speed, wait on a full line, unplug, replug and close."""
    for _ in range(rounds):
        async with sender(flush_timeout=0.02) as out, receiver() as lines:
            await out.connected(5)
            await lines.connected(5)
            await exchange(out, lines, 20_000)
            cable.hold()
            for _ in range(50):
                await out.send(b"x" * 1000)
            await asyncio.sleep(0.02)
            cable.unplug()
            await until(lambda: out.link.state == "down" and lines.link.state == "down", out)
            cable.plug()
            await out.connected(5)
            await lines.connected(5)
            cable.hold()
            for _ in range(50):
                await out.send(b"x" * 1000)
        cable.unplug()
        cable.plug()


@pytest.mark.parametrize("rounds", [5, pytest.param(100, marks=pytest.mark.slow)])
async def test_the_event_loop_is_not_held_up(
    cable: NullModem, sender: Any, receiver: Any, rounds: int
) -> None:
    """No stall above 20 ms, whatever is done with the port: at best of three."""
    asyncio.get_running_loop().set_debug(False)
    await busy_life(cable, sender, receiver, 1)
    for _ in range(3):  # the machine does other things too; what we do ourselves shows every time
        with Lag() as lag:
            await busy_life(cable, sender, receiver, rounds)
        if lag.worst < 0.02:
            break
    assert lag.worst < 0.02, f"worst {lag.worst:.3f} s; {lag.stack}"


async def test_urls_open_ports(cable: NullModem, driver: str) -> None:
    """``serial://`` and the path of the device; options are the config's."""
    url = f"serial://{{}}?baudrate=115200&pack=text&terminator=\\r\\n&driver={driver}"
    async with open_receiver(url.format(cable.b)) as lines, open_sender(url.format(cable.a)) as out:
        await lines.connected(5)
        await out.send("over a URL")
        assert (await lines.receive())[0] == "over a URL"
    assert open_sender("serial://COM3").config.port == "COM3"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"baudrate": "fast"}, "baudrate"),
        ({"baudrate": 0}, "baudrate"),
        ({"stopbits": 3}, "stopbits"),
        ({"parity": "X"}, "parity"),
        ({"bytesize": 9}, "bytesize"),
        ({"frame": "fixed"}, "size"),
        ({"terminator": b""}, "terminator"),
        ({"encoding": "klingon"}, "encoding"),
        ({"port": ""}, "port"),
        ({"driver": "fast"}, "driver"),
        ({"baud": 9600}, "baudrate"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], word: str) -> None:
    """An option that is wrong or unknown is named, with what is allowed."""
    with pytest.raises(ConfigError, match=word):
        SerialConfig.from_mapping(options)


async def test_stop_bits_that_a_driver_cannot_do(cable: NullModem) -> None:
    """1.5 stop bits: ``auto`` takes the driver that can; serialx, asked for by name, says that it cannot."""
    async with SerialSender(SerialConfig(port=cable.a, stopbits=1.5, bytesize=5)) as out:
        await out.connected(5)
    if _serial_drivers.serialx is not None:
        other: SerialReceiver[Any] = SerialReceiver(
            SerialConfig(port=cable.a, stopbits=1.5, driver="serialx")
        )
        with pytest.raises(ConfigError, match=r"1\.5"):
            await other.receive()
        await other.stop()


async def test_receiving_ends_with_the_stop(receiver: Any) -> None:
    """Who waits for a line when the receiver is stopped is told."""
    lines = receiver()
    await lines.connected(5)
    waiting = asyncio.ensure_future(lines.receive())
    await asyncio.sleep(0)
    await lines.stop()
    with pytest.raises(EndOfData):
        await waiting


def test_every_option_is_explained() -> None:
    """The table of options names all of them, with a word on each."""
    rows = option_table(SerialConfig)
    assert {"port", "baudrate", "terminator", "frame", "driver"} <= {row.name for row in rows}
    assert all(row.help for row in rows)
