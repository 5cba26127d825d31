"""Laws about `nexus bridge`: urgent items first, every item accounted for, none lost by a death."""

import asyncio
import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from command import Command
from mosquitto import Mosquitto
from null_modem import NullModem
from real import free_port

from nexus.adapters import open_receiver, open_sender
from nexus.cli import main
from nexus.cli._bucket import Bucket
from nexus.testing import virtual_time


def bridge(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, ["bridge", *arguments])


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., tuple[str, str, Path]]:
    """Make a file of items; give the URLs of it and of a file to write, and the path of that one."""

    def make(*items: Any) -> tuple[str, str, Path]:
        source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        source.write_text(
            "".join(f"{item if isinstance(item, str) else json.dumps(item)}\n" for item in items)
        )
        return f"file://{source}?replay=1", f"file://{target}", target

    return make


def read(target: Path) -> list[Any]:
    """Return the items of a file."""
    return [json.loads(line) for line in target.read_text().splitlines()]


Files = Callable[..., tuple[str, str, Path]]


def test_urgent_items_overtake_and_all_arrive(files: Files) -> None:
    """Items go by the rule's priority, each priority in its order; the account adds up."""
    items = [{"n": n, "t": 90 if n % 10 == 0 else 20} for n in range(500)]
    source, target, path = files(*items)
    done = bridge(source, target, "--priority", "-10 if t > 80 else 0", "--rate", "2000")
    assert done.exit_code == 0, done.output
    found = read(path)
    assert sorted(item["n"] for item in found) == list(range(500))
    for hot in (True, False):
        numbers = [item["n"] for item in found if (item["t"] == 90) is hot]
        assert numbers == sorted(numbers)
    assert max(place for place, item in enumerate(found) if item["t"] == 90) < 400
    assert "in 500 = filtered out 0 + put aside 0 + ingested 500 + not passed on 0" in done.output
    assert "priority -10: 50 sent" in done.output


def test_what_is_passed_on_is_chosen_and_made(files: Files) -> None:
    """The filter chooses, the payload is computed, and what does not fit is put aside and counted."""
    source, target, path = files({"t": 90, "u": "C"}, {"t": 10}, {"x": 1}, "{bad", {"t": 95, "u": "K"})
    done = bridge(source, target, "--filter", "t > 80", "--payload", "{'kelvin': t + 273, 'unit': lower(u)}")
    assert done.exit_code == 0, done.output
    assert read(path) == [{"kelvin": 363, "unit": "c"}, {"kelvin": 368, "unit": "k"}]
    assert "in 5 = filtered out 1 + put aside 2 + ingested 2 + not passed on 0" in done.output
    assert "put aside 2 (unpack 1, convert 1)" in done.output or "convert 1, unpack 1" in done.output


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("drop_newest", "first"), ("drop_oldest", "last"), ("latest:k", "latest"), ("block", "all")],
)
def test_policies_say_what_is_dropped(files: Files, policy: str, kept: str) -> None:
    """With a full queue and a slow destination the policy decides, and what it drops is counted."""
    source, target, path = files(*({"n": n, "k": n % 5} for n in range(300)))
    done = bridge(source, target, "--policy", policy, "--maxsize", "20", "--rate", "400", "--json")
    assert done.exit_code == 0, done.output
    last = json.loads([line for line in done.output.splitlines() if line.startswith("{")][-1])
    found = [item["n"] for item in read(path)]
    assert last["balanced"] is True
    assert last["ingested"] == 300 == last["handled"] + sum(last["dropped"].values())
    assert len(found) == last["handled"]
    if kept == "all":
        assert found == list(range(300))
    else:
        assert last["handled"] < 300
        assert (kept == "first") == (299 not in found)


async def test_on_the_console_stands_nothing_but_the_items() -> None:
    """From the standard input to the standard output it is a filter: the account goes to the other one."""
    async with Command("bridge", "console:", "console:", "--filter", "t > 80") as command:
        status, out, err = await command.end(b'{"t": 90}\n{"t": 20}\n{"t": 99}\n')
    assert (status, out) == (0, '{"t":90}\n{"t":99}\n'), err
    assert "in 3 = filtered out 1" in err


def test_a_rate_holds(files: Files) -> None:
    """With a rate of 100 a second, 60 items take half a second at least."""
    source, target, _ = files(*range(60))
    done = bridge(source, target, "--rate", "100", "--json")
    last = json.loads(done.output.splitlines()[-1])
    assert last["took"]["0"]["max"] > 0.45
    assert last["handled"] == 60


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["odd://x", "mem://x"], 1, "Error: scheme 'odd' is not known"),
        (["mem://x"], 2, "Missing argument 'DST'"),
        (["mem://x", "mem://y", "--priority", "1 +"], 2, "--priority"),
        (["mem://x", "mem://y", "--policy", "odd"], 2, "allowed: block, drop_oldest"),
        (["mem://x", "mem://y", "--policy", "block:a"], 2, "allowed: block, drop_oldest"),
        (["mem://x", "mem://y", "--topic", "a"], 1, "Error: --topic: mem://y has no topics"),
        (["mem://x", "mem://y", "--topic", "=eval('1')"], 2, "found the function 'eval'"),
        (["mem://x", "file:///dev/null/x", "--seconds", "1"], 1, "Error: "),
        (["mem://x", "mqtt://127.0.0.1:1", "--topic", "a/#"], 1, "Error: topic: found 'a/#'"),
        (["tcp://127.0.0.1:1?retry=never", "mem://y"], 1, "link failed: tcp://127.0.0.1:1"),
    ],
)
def test_what_is_wrong_is_one_clear_line(arguments: list[str], status: int, words: str) -> None:
    """A wrong URL or a link that has failed has the exit status 1, a wrong usage 2; there is no traceback."""
    done = bridge(*arguments)
    assert (done.exit_code, "Traceback" in done.output) == (status, False), done.output
    assert words in done.output


def test_what_cannot_be_sent_is_counted(files: Files) -> None:
    """An item that the destination refuses is logged and counted as failed; the others go."""
    source, target, _ = files("one", 5, "two")
    done = bridge(
        f"{source}&pack=text", f"{target}?pack=csv", "--payload", "[data] if len(data) > 1 else float('nan')"
    )
    assert "failed 1" in done.output, done.output
    assert "PackerError" in done.output


def test_any_number_of_priorities_will_do(files: Files) -> None:
    """Hundreds of different priorities at once are all sent, far ones together, and none is refused."""
    source, target, path = files(*range(5000))
    done = bridge(source, target, "--priority", "data % 700 - 350")
    assert done.exit_code == 0, done.output
    assert sorted(read(path)) == list(range(5000))


async def test_tcp_to_a_file(tmp_path: Path) -> None:
    """What comes over TCP is in the file, in its order; SIGINT ends it with the account and status 0."""
    port = free_port()
    target = tmp_path / "out.jsonl"
    async with (
        Command("bridge", f"tcp://127.0.0.1:{port}?listen=1", f"file://{target}", "--plain") as command,
        open_sender(f"tcp://127.0.0.1:{port}?retry_cap=0.05") as sender,
    ):
        for number in range(2000):
            await sender.send({"n": number})
        await command.says("in 2,000")
        status, out, err = await command.interrupt()
    assert (status, [item["n"] for item in read(target)]) == (0, list(range(2000))), err
    assert "in 2,000 = filtered out 0 + put aside 0 + ingested 2,000" in out
    assert "links up, up" in err


async def test_a_serial_line_to_tcp(tmp_path: Path) -> None:
    """Lines of a serial port arrive over TCP as they came."""
    async with NullModem(tmp_path) as cable:
        port = free_port()
        async with (
            open_receiver(f"tcp://127.0.0.1:{port}?listen=1") as receiver,
            Command("bridge", f"serial://{cable.b}", f"tcp://127.0.0.1:{port}") as command,
            asyncio.timeout(30),
        ):
            await command.says("link serial")
            async with open_sender(f"serial://{cable.a}") as sender:
                for number in range(100):
                    await sender.deliver({"n": number})
                found = [(await receiver.receive())[0]["n"] for _ in range(100)]
            status, _, err = await command.interrupt()
    assert (status, found) == (0, list(range(100))), err


@pytest.mark.parametrize(
    ("options", "path", "topic"),
    [
        ((), "", "oven/1"),
        ((), "/other", "other"),
        (("--topic", "fixed"), "", "fixed"),
        (("--topic", "='copy/' + topic"), "", "copy/oven/1"),
    ],
)
async def test_topics_are_carried_over(options: tuple[str, ...], path: str, topic: str) -> None:
    """From broker to broker an item keeps its topic, unless the URL or --topic says another one."""
    async with Mosquitto() as near, Mosquitto() as far, asyncio.timeout(30):
        destination = f"mqtt://127.0.0.1:{far.port}"
        async with (
            open_receiver(f"{destination}/#") as receiver,
            Command(
                "bridge", f"mqtt://127.0.0.1:{near.port}/oven/#", destination + path, *options
            ) as command,
            open_sender(f"mqtt://127.0.0.1:{near.port}?qos=1") as sender,
        ):
            await receiver.connected(20)
            await command.says(": up", times=2)
            await sender.deliver(7, topic="oven/1")
            data, meta = await receiver.receive()
            status, _, err = await command.interrupt()
    assert (status, data, meta["topic"]) == (0, 7, topic), err


async def test_a_killed_bridge_loses_nothing() -> None:
    """Killed in the middle of 500 items of QoS 1 and started again, it has passed on every one."""
    async with Mosquitto() as near, Mosquitto() as far, asyncio.timeout(55):
        source = f"mqtt://127.0.0.1:{near.port}/in?qos=1&client_id=bridge&clean_session=false"
        destination = f"mqtt://127.0.0.1:{far.port}/out?qos=1"
        found: list[int] = []
        async with (
            open_receiver(f"mqtt://127.0.0.1:{far.port}/out?qos=1") as receiver,
            open_sender(f"mqtt://127.0.0.1:{near.port}/in?qos=1") as sender,
        ):
            await receiver.connected(20)
            async with Command("bridge", source, destination, "--rate", "600") as command:
                await command.says(": up", times=2)
                for number in range(500):
                    await sender.send(number)
                while len(found) < 150:
                    found.append((await receiver.receive())[0])
                await command.kill()
            assert await sender.flush(20)
            assert len(set(found)) < 500
            async with Command("bridge", source, destination) as command:
                while len(set(found)) < 500:
                    found.append((await receiver.receive())[0])
                status, out, _ = await command.interrupt()
    assert set(found) == set(range(500))
    assert status == 0
    assert "failed 0" in out


async def test_a_stop_leaves_unsent_items_to_their_source() -> None:
    """When the destination is away, the stop ends in its grace with status 75; later nothing is missing."""
    async with Mosquitto() as near, asyncio.timeout(50):
        port = free_port()
        source = f"mqtt://127.0.0.1:{near.port}/in?qos=1&client_id=bridge&clean_session=false"
        destination = f"tcp://127.0.0.1:{port}?flush_timeout=0.1&retry_cap=0.05"
        async with open_sender(f"mqtt://127.0.0.1:{near.port}/in?qos=1") as sender:
            async with Command("bridge", source, destination, "--grace", "0.2", "--plain") as command:
                await command.says(f"link mqtt://127.0.0.1:{near.port}/in: up")
                for number in range(50):
                    await sender.deliver(number)
                await command.says("in 50 ")
                status, out, _ = await command.interrupt()
            assert status == 75
            assert "50 left" in out
            async with (
                open_receiver(f"tcp://127.0.0.1:{port}?listen=1") as receiver,
                Command("bridge", source, destination) as command,
            ):
                found = [(await receiver.receive())[0] for _ in range(50)]
                status, _, err = await command.interrupt()
    assert (status, sorted(found)) == (0, list(range(50))), err


async def test_a_second_signal_makes_the_stop_short() -> None:
    """With nobody at the destination and a long grace, the second SIGINT ends it."""
    port = free_port()
    listening = f"tcp://127.0.0.1:{port}?listen=1"
    away = f"tcp://127.0.0.1:{free_port()}?flush_timeout=0.1"
    async with (
        Command("bridge", listening, away, "--grace", "600", "--plain") as command,
        open_sender(f"tcp://127.0.0.1:{port}?retry_cap=0.05") as sender,
    ):
        await sender.send(1)
        await command.says("in 1 ")
        command.process.send_signal(signal.SIGINT)
        await command.says("stopping")
        status, out, _ = await command.interrupt()
    assert status == 75
    assert "1 left" in out


async def test_json_lines_tell_how_it_goes(tmp_path: Path) -> None:
    """With --json a line a second and one at the end are objects; the last one says that it is."""
    async with Command(
        "bridge", "mem://x", f"file://{tmp_path}/out", "--json", "--seconds", "1.5"
    ) as command:
        status, out, _ = await command.end()
    lines = [json.loads(line) for line in out.splitlines()]
    assert (status, [line["final"] for line in lines]) == (0, [False, True])
    assert lines[-1]["clean"] is True
    assert {link["name"] for link in lines[-1]["links"]} == {"mem://x", f"file://{tmp_path}/out"}


def test_without_confirming_all_arrive_too(files: Files) -> None:
    """With --no-confirm an item counts when it is on its way; at the end all have arrived."""
    source, target, path = files(*range(1000))
    done = subprocess.run(
        [sys.executable, "-m", "nexus.cli", "bridge", source, target, "--no-confirm"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, read(path)) == (0, list(range(1000))), done.stderr


@virtual_time
async def test_a_bucket_holds_its_rate() -> None:
    """Within any time, no more tokens are given than the rate allows, and one, or a tenth of a second."""
    bucket = Bucket(50.0)
    times: list[float] = []

    async def take(priority: int) -> None:
        await bucket.take(priority)
        times.append(asyncio.get_running_loop().time())

    async with asyncio.TaskGroup() as group:
        for number in range(500):
            group.create_task(take(number % 3), name=f"take {number}")
    assert times[-1] - times[0] == pytest.approx(499 / 50, rel=0.02)
    for begin in range(0, 500, 25):
        for end in range(begin, 500, 25):
            assert end - begin <= (times[end] - times[begin]) * 50 + 5 + 1e-6


@virtual_time
async def test_a_bucket_gives_to_the_urgent_first() -> None:
    """Of those who wait, the lowest priority is next, and equal ones in their order; who left gets none."""
    bucket = Bucket(10.0)
    order: list[tuple[int, int]] = []

    async def take(priority: int, number: int) -> None:
        await bucket.take(priority)
        order.append((priority, number))

    ranks = [random.Random(7).randrange(-3, 3) for _ in range(40)]
    async with asyncio.TaskGroup() as group:
        await bucket.take(0)
        tasks = [group.create_task(take(rank, n), name=f"take {n}") for n, rank in enumerate(ranks)]
        await asyncio.sleep(0)
        tasks[3].cancel()
    assert order == sorted((rank, n) for n, rank in enumerate(ranks) if n != 3)
