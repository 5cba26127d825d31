"""QoS 1 loses nothing: the broker restarts again and again, and the consumer is killed with its hands full.

The long form: ``pytest -m slow tests/adapters/test_mqtt_loss.py``.
"""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import attrs
import pytest
from mosquitto import Mosquitto

from nexus.adapters.mqtt import MqttConfig, MqttSender

ROOT = Path(__file__).parents[2]


@attrs.frozen
class Form:
    """How much of it."""

    messages: int
    restarts: int
    kills: int
    transport: str = "tcp"


FORMS = [
    pytest.param(Form(10_000, 5, 5), id="short"),
    pytest.param(Form(300, 3, 2, "websockets"), id="websockets"),
    pytest.param(Form(20_000, 50, 20), id="long", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    pytest.param(Form(100_000, 50, 50), id="longest", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
]


class Consumer:
    """A process that appends to a file what it has handled, then accepts it."""

    def __init__(self, port: int, transport: str, protocol: str, when: str, file: Path) -> None:
        program = Path(__file__).parents[1] / "support" / "mqtt_consumer.py"
        self._command = [
            sys.executable,
            str(program),
            str(port),
            transport,
            protocol,
            when,
            str(file),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self.file = file
        file.touch()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, cwd=ROOT)

    def kill(self) -> None:
        """Kill it as SIGKILL does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def handled(self) -> list[int]:
        """Return the numbers of what it has handled, in order."""
        return [int(line) for line in self.file.read_bytes().split()]

    async def progress(self) -> None:
        """Wait until it has handled something more."""
        size = self.file.stat().st_size
        while self.file.stat().st_size == size:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.002)


def events(form: Form) -> list[str]:
    """Spread the kills among the restarts."""
    names = ["restart"] * form.restarts
    for number in range(form.kills):
        names.insert((number + 1) * len(names) // (form.kills + 1), "kill")
    return names


async def handled_in_spite(form: Form, protocol: Any, folder: Path, when: str, patience: float) -> list[int]:
    """Send, restart and kill; return the numbers of what was handled, as often as it was."""
    transport: Any = form.transport
    async with Mosquitto(websockets={} if transport == "websockets" else None) as broker:
        port = broker.port if transport == "tcp" else broker.websockets_port
        consumer = Consumer(port, transport, protocol, when, folder / "handled")
        config = MqttConfig(
            host="127.0.0.1", port=port, transport=transport, topic="loss", qos=1, protocol=protocol,
            retry_cap=0.05, client_id="producer", clean_session=False,
        )  # fmt: skip
        try:
            consumer.start()
            async with MqttSender[Any](config) as sender:
                names = events(form)
                sent = 0
                await sender.send({"i": -1})  # tells that the consumer has subscribed
                while not consumer.handled():
                    await sender.send({"i": -1})
                    await asyncio.sleep(0.05)
                for number, name in enumerate([*names, "end"], 1):
                    upto = form.messages * number // (len(names) + 1)
                    moved = asyncio.ensure_future(consumer.progress())
                    for sent in range(sent, upto):  # noqa: B020
                        await sender.send({"i": sent})
                    sent = upto
                    await asyncio.wait_for(moved, 20)
                    if name == "restart":
                        await broker.restart()
                    elif name == "kill":
                        consumer.kill()
                        consumer.start()
                assert await sender.flush(20)
                assert sender.counts.dropped == {}
            async with asyncio.timeout(patience):
                while len(set(consumer.handled())) < form.messages + 1:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pass  # whoever asked judges what is missing
        finally:
            consumer.kill()
    return [number for number in consumer.handled() if number >= 0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
async def test_qos_1_loses_nothing(
    form: Form, protocol: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every message arrives at least once, whatever dies; how many came twice is counted."""
    began = time.monotonic()
    handled = await handled_in_spite(form, protocol, tmp_path, "handled", 60)
    lost = set(range(form.messages)) - set(handled)
    line = {"law": f"mqtt qos 1, MQTT {protocol}", "offered": form.messages, "lost": len(lost)}
    line |= {"delivered": len(set(handled)), "duplicated": len(handled) - len(set(handled))}
    line |= attrs.asdict(form) | {"wall_s": round(time.monotonic() - began, 1)}
    if form.messages > 10_000:
        with capsys.disabled():
            sys.stdout.write(f"\n{json.dumps(line)}\n")
    assert lost == set(), line


async def test_acknowledging_on_receipt_loses(tmp_path: Path) -> None:
    """The law finds a consumer that acknowledges before it has handled, as most do."""
    form = Form(1_000, 0, 3)
    handled = await handled_in_spite(form, "3.1.1", tmp_path, "received", 1)
    assert len(set(handled)) < form.messages
