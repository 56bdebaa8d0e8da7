import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from epsagon_fast.producer import _fast_path, pure_ids
from epsagon_fast.producer.pure_ids import pure_span_id
from epsagon_fast.queue.ring import own_pid


def told_by_child(say: Callable[[], str]) -> str:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, say().encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        told = answer.read()
    os.waitpid(pid, 0)
    return told


def test_pid_is_that_of_each_fork() -> None:
    assert own_pid() == own_pid() == os.getpid()
    said = told_by_child(lambda: f"{own_pid()} {os.getpid()} {told_by_child(lambda: f'{own_pid()} {os.getpid()}')}")
    first, real_first, second, real_second = map(int, said.split())
    assert (first, second) == (real_first, real_second)
    assert len({first, second, own_pid()}) == 3


@pytest.fixture(params=[_fast_path.span_id, pure_span_id], ids=["compiled", "reference"])
def span_id(request: pytest.FixtureRequest) -> Callable[[], str]:
    made: Callable[[], str] = request.param
    return made


@pytest.mark.parametrize("kernel_bytes", [_fast_path.kernel_bytes, os.urandom], ids=["compiled", "reference"])
def test_bytes_of_the_kernel_are_as_many_as_asked_for_and_new(kernel_bytes: Callable[[int], bytes]) -> None:
    assert [len(kernel_bytes(count)) for count in (0, 1, 8, 64, 65, 1000)] == [0, 1, 8, 64, 65, 1000]
    assert len({kernel_bytes(8) for _ in range(1000)}) == 1000
    for place in range(8):
        assert len({kernel_bytes(8)[place] for _ in range(1000)}) > 200
    with pytest.raises(ValueError):
        kernel_bytes(-1)


def test_child_takes_none_of_the_ids_of_its_parent(span_id: Callable[[], str]) -> None:
    span_id()
    theirs = told_by_child(lambda: " ".join(span_id() for _ in range(100))).split()
    mine = [span_id() for _ in range(100)]
    assert len({*theirs, *mine}) == 200


def test_threads_share_no_id(span_id: Callable[[], str]) -> None:
    with ThreadPoolExecutor(8) as pool:
        taken = [each for some in pool.map(lambda _: [span_id() for _ in range(1000)], range(8)) for each in some]
    assert len(set(taken)) == 8000
    assert all(re.fullmatch("[0-9a-f]{16}", each) for each in taken)


def test_bits_of_an_id_are_set_as_often_as_not(span_id: Callable[[], str]) -> None:
    numbers = [int(span_id(), 16) for _ in range(4000)]
    for bit in range(64):
        assert 1600 < sum(number >> bit & 1 for number in numbers) < 2400


def test_id_is_never_zero_and_keeps_its_leading_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pure_ids._generator, "bits", lambda _: 10)
    assert pure_span_id() == "000000000000000a"
    monkeypatch.setattr(pure_ids._generator, "bits", lambda _: 0)
    assert int(pure_span_id(), 16) > 0
