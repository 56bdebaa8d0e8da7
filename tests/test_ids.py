import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from epsagon_fast.producer import ids
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


def test_child_takes_none_of_the_ids_of_its_parent() -> None:
    ids.span_id()
    theirs = told_by_child(lambda: " ".join(ids.span_id() for _ in range(100))).split()
    mine = [ids.span_id() for _ in range(100)]
    assert len({*theirs, *mine}) == 200


def test_threads_share_no_id() -> None:
    with ThreadPoolExecutor(8) as pool:
        taken = [each for some in pool.map(lambda _: [ids.span_id() for _ in range(1000)], range(8)) for each in some]
    assert len(set(taken)) == 8000
    assert {len(bytes.fromhex(each)) for each in taken} == {ids.SPAN_ID_BYTES}


def test_ids_ask_the_kernel_once_in_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    urandom = os.urandom
    ids.span_id()
    monkeypatch.setattr(os, "urandom", lambda size: (asked.append(size), urandom(size))[1])
    assert told_by_child(lambda: f"{[ids.span_id() for _ in range(640)] and len(asked)}") == "1"
    ids.span_id()
    assert asked == []


def test_id_is_sixteen_lower_case_hex_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter([0, 1])
    monkeypatch.setattr(ids._generator, "bits", lambda _: next(numbers, 10))
    assert re.fullmatch("[0-9a-f]{16}", ids.span_id())
    monkeypatch.setattr(ids._generator, "bits", lambda _: 10)
    assert ids.span_id() == "000000000000000a"
