"""`nexus zmq-broker`: pass what publishers send on to subscribers."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from nexus.adapters._zmq_broker import BrokerCounts, ZmqBroker

__all__ = ["command"]


@click.command("zmq-broker")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind; * for all.")
@click.option(
    "--publisher-port",
    type=click.IntRange(0, 65535),
    default=5555,
    show_default=True,
    help="Where senders connect; 0 for a free port.",
)
@click.option(
    "--subscriber-port",
    type=click.IntRange(0, 65535),
    default=5556,
    show_default=True,
    help="Where receivers connect; 0 for a free port.",
)
@click.option(
    "--hwm",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Messages held for each peer; a subscriber loses what is over it.",
)
@click.option(
    "--max-size", type=click.IntRange(min=1), default=2**20, show_default=True, help="Bytes of a message."
)
@click.option("--curve-secret", metavar="FILE", help="Certificate file with the broker's secret key.")
@click.option(
    "--curve-client",
    "curve_clients",
    metavar="KEY",
    multiple=True,
    help="Who may connect: a public key, a file of them, a folder of certificates. Default: who has the "
    "broker's public key.",
)
@click.option("--insecure", is_flag=True, help="Let other machines in without CURVE.")
@click.option("--stats", type=click.FloatRange(min=0.1), metavar="SECONDS", help="Print the counts so often.")
def command(
    host: str,
    publisher_port: int,
    subscriber_port: int,
    hwm: int,
    max_size: int,
    curve_secret: str | None,
    curve_clients: tuple[str, ...],
    insecure: bool,
    stats: float | None,
) -> None:
    """Pass messages from publishers to subscribers.

    It runs until SIGINT or SIGTERM. Publishers (PUB) connect to one port, subscribers (SUB) to the other;
    zmq://HOST means this broker, and so do the processes of heisskleber.
    """
    import asyncio

    from nexus.adapters._zmq_broker import ZmqBroker
    from nexus.adapters._zmq_config import ZmqConfig
    from nexus.errors import NexusError

    try:
        broker = ZmqBroker(
            ZmqConfig(
                host=host,
                publisher_port=publisher_port,
                subscriber_port=subscriber_port,
                send_hwm=hwm,
                receive_hwm=hwm,
                max_size=max_size,
                curve_secret=curve_secret,
                curve_clients=curve_clients,
                insecure=insecure,
            )
        )
        broker.open()
    except NexusError as exc:
        text = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise click.ClickException(text) from exc
    click.echo(f"publishers: {broker.publisher_address}")
    click.echo(f"subscribers: {broker.subscriber_address}")
    asyncio.run(_serve(broker, stats))


async def _serve(broker: "ZmqBroker", stats: float | None) -> None:
    """Run the broker until a signal comes, then print what it has done."""
    import asyncio
    import signal

    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(broker.run(), name="zmq-broker")
            while not ended.is_set():
                try:
                    async with asyncio.timeout(stats):
                        await ended.wait()
                except TimeoutError:
                    click.echo(_line(broker.counts))
            task.cancel()
    finally:
        counts = broker.counts
        await broker.close()
    click.echo(_line(counts))


def _line(counts: "BrokerCounts") -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in counts.as_dict().items())
