"""What sending a trace costs: Delivery beside a plain urllib3 POST loop, over loopback, the server in its own process.

`pytest benches/bench_delivery.py` prints traces per second and the sending process's CPU per trace. With an answer that
takes 50 ms a plain loop sends 20 traces/s; Delivery's senders must reach the promised 500.
"""

import logging
import multiprocessing
import socket
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import pytest
import urllib3

from epsagon_fast.collector.delivery import Delivery
from epsagon_fast.collector.destination import Destination
from epsagon_fast.protocol import Outcome

BODY = b'{"events":[' + b'{"id":"0123456789"},' * 500 + b"{}]}"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
Sender = Callable[[str, int], None]


def serve(addresses: Connection, delay_s: float) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    addresses.send(f"http://127.0.0.1:{listener.getsockname()[1]}/")
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=converse, args=(connection, delay_s), daemon=True).start()


def converse(connection: socket.socket, delay_s: float) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, connection.makefile("rb") as stream:
        while stream.readline():
            while (line := stream.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            stream.read(length)
            time.sleep(delay_s)
            connection.sendall(ANSWER)


@pytest.fixture(scope="module", params=[0.0, 0.05], ids=["at once", "after 50 ms"])
def backend(request: pytest.FixtureRequest) -> Iterator[tuple[str, float]]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, args=(theirs, request.param), daemon=True)
    process.start()
    assert ours.poll(30), "the server does not start"
    yield ours.recv(), request.param
    process.kill()
    process.join()


def plain_loop(url: str, count: int) -> None:
    with urllib3.PoolManager() as pool:
        for number in range(count):
            key = number.to_bytes(16, "big").hex()
            headers = {"Content-Type": "application/json", "Authorization": "Bearer token", "Idempotency-Key": key}
            assert pool.request("POST", url, body=BODY, headers=headers, retries=False, timeout=5.0).status == 200


def through_delivery(url: str, count: int) -> None:
    delivery = Delivery(log=logging.getLogger(__name__))
    destination = Destination(url, "token", 5.0)
    for number in range(count):
        delivery.submit(number.to_bytes(16, "big"), destination, BODY)
    outcomes = []
    while len(outcomes) < count:
        time.sleep(0.002)
        outcomes += [result.outcome for result in delivery.results()]
    delivery.close(5.0)
    assert set(outcomes) == {Outcome.DELIVERED}


@pytest.mark.parametrize("sender", [plain_loop, through_delivery])
def test_sending(backend: tuple[str, float], sender: Sender, capsys: pytest.CaptureFixture[str]) -> None:
    url, delay_s = backend
    count = 60 if delay_s and sender is plain_loop else 2000
    sender(url, 20)
    wall, cpu = time.perf_counter(), time.process_time()
    sender(url, count)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    with capsys.disabled():
        name = f"{sender.__name__}, answered after {delay_s * 1000:.0f} ms"
        print(f"\n{name:42} {count / wall:7.0f} traces/s  {cpu / count * 1e6:6.0f} us CPU per trace")
