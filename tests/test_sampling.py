"""Sampling's decisions: which traces rules keep, how many chance keeps, and what the next collector knows of that."""

import hashlib
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsagon_fast.collector.sampling import decisions, names
from epsagon_fast.collector.sampling.decisions import Decision, Decisions
from epsagon_fast.collector.sampling.policy import COMPANY, ERROR, LEAST, RATE, SLOW, SLOWEST, Policy, Seen
from epsagon_fast.config.sampling import Rules, fault, read, share
from epsagon_fast.thresholds import ALL, weight_of

TRACES = 100_000


def policy(text: str) -> Policy:
    return Policy("shop", text, read(text))


def seen(random_bits: int = 0, name: str = "checkout", failed: bool = False, duration_s: float | None = 0.1) -> Seen:
    return Seen(name, failed, duration_s, random_bits)


@dataclass
class Requests:
    """Made traces, the same in every run."""

    seed: int = 1

    def __iter__(self) -> Iterator[int]:
        ids = random.Random(self.seed)
        return (ids.getrandbits(56) for _ in range(TRACES))


def within(count: int, share: float, total: int = TRACES) -> bool:
    """Say whether a count is within five standard deviations of what a binomial distribution expects."""
    return abs(count - share * total) <= 5 * sqrt(total * share * (1 - share)) + 1


# The line.


SHARES = st.integers(0, 100).map(lambda percent: (f"{percent}%", percent / 100))
COUNTS = st.integers(1, 10**6)
LINES = st.fixed_dictionaries(
    {"rate": SHARES},
    optional={
        "slowest": SHARES,
        "slower": st.integers(1, 10**6).map(lambda ms: (f"{ms}ms", ms * 0.001)),
        "least": COUNTS.map(lambda count: (f"{count}/min", count)),
        "budget": COUNTS.map(lambda count: (f"{count}/s", float(count))),
        "errors": st.sampled_from([("on", True), ("off", False)]),
    },
)
FIELDS = {"slower": "slower_s", "least": "least_per_minute", "budget": "budget_per_s"}


@given(LINES, st.randoms(use_true_random=False), st.sampled_from([",", ", ", " ,\t"]))
def test_line_says_the_same_in_any_order_and_with_any_spaces(
    line: dict[str, tuple[str, object]], order: random.Random, comma: str
) -> None:
    words = [f"{word}={text}" for word, (text, _) in line.items()]
    order.shuffle(words)
    assert read(comma.join(words)) == Rules(**{FIELDS.get(word, word): value for word, (_, value) in line.items()})


@given(st.floats(0, 1) | st.floats(1e-9, 1e-3))
def test_share_may_be_what_python_writes_for_a_small_number(rate: float) -> None:
    assert read(f"rate={rate!r}").rate == share(str(rate)) == rate


@given(st.text("rate=budgt,slow10%/min\n٥é", max_size=40))
def test_any_other_text_is_refused_with_a_reason_and_no_other_error(text: str) -> None:
    reason = fault(text)
    assert reason or not text.strip() or isinstance(read(text.strip()), Rules)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("slower=1s", "neither rate nor budget"),
        ("rate=1%,rate=2%", "rate comes twice"),
        ("rate=110%", "rate=110% is not a share from 0% to 100%"),
        ("sample=1%", "'sample' is none of its words"),
        ("budget=0/s", "budget=0/s is not traces a second"),
    ],
)
def test_reason_names_the_word_that_is_wrong(text: str, reason: str) -> None:
    assert reason in fault(text)


def test_recipes_of_the_docs_can_be_read() -> None:
    page = (Path(__file__).parents[1] / "docs" / "sampling.md").read_text()
    recipes = re.findall(r"^\| [^|`]+ \| `([^`]+=[^`]+)` \|$", page, re.MULTILINE)
    assert len(recipes) == 10
    assert [fault(recipe) for recipe in recipes] == [""] * 10


# The rules.


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_rate_keeps_its_share_and_the_weights_tell_how_many_there_were(rate: float) -> None:
    judge = policy(f"rate={rate}").judge
    kept = [ruling for bits in Requests() if (ruling := judge(seen(bits), 0.0))]
    assert within(len(kept), rate)
    weight = sum(weight_of(ruling.threshold) for ruling in kept)
    assert within(round(weight * rate), rate)


def test_services_with_different_rates_agree() -> None:
    small, large = policy("rate=2%").judge, policy("rate=20%").judge
    assert not [bits for bits in Requests() if small(seen(bits), 0.0) and not large(seen(bits), 0.0)]


def test_no_trace_of_a_kept_class_is_lost() -> None:
    judge = policy("rate=0, slower=1s, least=1/min").judge
    assert judge(seen(), 0.0) == (LEAST, 0)
    for number, bits in enumerate(Requests()):
        failed, slow = number % 3 == 1, number % 3 == 2
        expected = (ERROR, 0) if failed else (SLOW, 0) if slow else None
        assert judge(seen(bits, failed=failed, duration_s=1.0 if slow else 0.5), 0.0) == expected


def test_errors_are_like_the_rest_if_they_are_turned_off() -> None:
    judge = policy("rate=0,errors=off").judge
    assert judge(seen(failed=True), 0.0) is None


def test_slowest_share_of_each_name_is_kept_whatever_the_name_takes() -> None:
    judge, times, total = policy("rate=0,slowest=2%").judge, random.Random(2), TRACES // 4
    kept = Counter[str]()
    slow = Counter[str]()
    scales = {"fast": 0.001, "slow": 10.0}
    for number, bits in zip(range(total), Requests(), strict=False):
        name = "fast" if number % 2 else "slow"
        duration_s = scales[name] * times.lognormvariate(0, 1)
        if judge(seen(bits, name, duration_s=duration_s), 0.0):
            kept[name] += 1
            slow[name] += duration_s > scales[name] * 2.5
    for name in scales:
        assert kept[name] == pytest.approx(0.02 * total / 2, rel=0.1)
        assert slow[name] > 0.95 * kept[name]


def test_slowest_share_of_equal_durations_is_a_share_by_chance() -> None:
    judge = policy("rate=0,slowest=10%").judge
    kept = [ruling for bits in Requests() if (ruling := judge(seen(bits), 0.0))]
    assert {ruling.reason for ruling in kept} == {SLOWEST}
    assert within(len(kept), 0.1)


def test_rare_names_stay_visible_in_every_minute() -> None:
    judge = policy("rate=0,least=3/min").judge
    times_s = [60.0 * minute + second for minute in range(5) for second in range(50)]
    kept = [now for now in times_s for name in ("rare", "other") if judge(seen(0, name), now)]
    assert Counter(int(now // 60) for now in kept) == dict.fromkeys(range(5), 6)


def test_names_that_hold_ids_are_not_all_rare() -> None:
    judge = policy("rate=0,least=1/min").judge
    kept = sum(judge(seen(0, f"/order/{number}"), 0.0) is not None for number in range(3 * names.MOST_NAMES))
    assert kept == names.MOST_NAMES + 1


def test_budget_adapts_the_rate_to_any_load_and_leaves_errors_alone() -> None:
    judge, ids = policy("budget=50/s").judge, random.Random(3)
    for per_s in (20, 400, 2000):
        kept = Counter[int]()
        for second in range(100 * per_s, 100 * per_s + 20):
            for number in range(per_s):
                now = second + number / per_s
                failed = number % 200 == 0
                ruling = judge(seen(ids.getrandbits(56), failed=failed), now)
                assert ruling or not failed
                kept[second] += ruling is not None
        settled = [kept[second] for second in sorted(kept)[8:]]
        assert sum(settled) / len(settled) == pytest.approx(min(per_s, 50), rel=0.25)
        assert max(kept.values()) < 150


def test_traces_under_a_budget_tell_how_many_there_were() -> None:
    judge, ids = policy("budget=20/s").judge, random.Random(4)
    weight = 0.0
    for number in range(20_000):
        ruling = judge(seen(ids.getrandbits(56)), number / 1000)
        weight += weight_of(ruling.threshold) if ruling else 0
    assert weight == pytest.approx(20_000, rel=0.2)


JUDGE = """
import random
from epsagon_fast.collector.sampling.policy import Policy, Seen
from epsagon_fast.config.sampling import read
text = "rate=10%, slowest=5%, least=2/min, budget=40/s"
policy, ids = Policy("shop", text, read(text)), random.Random(5)
for number in range(2000):
    name, duration_s = f"name {number % 7}", (number % 50) / 100
    print(policy.judge(Seen(name, number % 97 == 0, duration_s, ids.getrandbits(56)), number / 500), policy.number)
"""


def test_eight_processes_decide_alike() -> None:
    environments = [{**os.environ, "PYTHONHASHSEED": str(number)} for number in range(8)]
    found = [subprocess.Popen([sys.executable, "-c", JUDGE], stdout=subprocess.PIPE, env=each) for each in environments]
    answers = {hashlib.sha256(process.communicate(timeout=60)[0]).digest() for process in found}
    assert [process.returncode for process in found] == [0] * 8
    assert len(answers) == 1


# What the next collector knows.


def shared_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_next_collector_follows_what_was_kept_for_a_minute(folder_fd: int) -> None:
    first = Decisions(folder_fd, 0.0)
    by_rate, by_rule = Decision(RATE, 2**52, 7), Decision(ERROR, 0, 8)
    first.keep(shared_id(1), by_rate, 100.0)
    first.keep(shared_id(2), by_rule, 100.0)
    for reader in (first, Decisions(folder_fd, 101.0)):
        # Chance decided for the traces of its policy, a rule for all of the request.
        assert (reader.kept(shared_id(1), 7), reader.kept(shared_id(1), 8)) == (by_rate, None)
        assert (reader.kept(shared_id(2), 7), reader.kept(shared_id(3), 7)) == (by_rule, None)
    assert Decisions(folder_fd, 161.0).kept(shared_id(1), 7) is None
    # The machine was started anew, and its clock with it.
    assert Decisions(folder_fd, 50.0).kept(shared_id(1), 7) is None
    first.close()


def test_chance_decides_for_each_policy_of_a_request(folder_fd: int) -> None:
    both = Decisions(folder_fd, 0.0)
    one, other = Decision(RATE, 5, 7), Decision(RATE, 6, 8)
    for decision in (one, other, other._replace(threshold=9)):
        both.keep(shared_id(1), decision, 1.0)
    for reader in (both, Decisions(folder_fd, 2.0)):
        assert (reader.kept(shared_id(1), 7), reader.kept(shared_id(1), 8)) == (one, other)
    both.close()


def test_rule_counts_for_a_request_that_chance_had_kept(folder_fd: int) -> None:
    both = Decisions(folder_fd, 0.0)
    for decision in (Decision(RATE, 5, 7), Decision(SLOW, 0, 7), Decision(RATE, 6, 7)):
        both.keep(shared_id(1), decision, 1.0)
    for reader in (both, Decisions(folder_fd, 2.0)):
        assert reader.kept(shared_id(1), 7) == Decision(SLOW, 0, 7)
    both.close()


def test_decisions_are_bounded_in_memory_and_in_the_file(
    folder_fd: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "KEPT", 10)
    monkeypatch.setattr(decisions, "LEFT_OUT", 10)
    collector = Decisions(folder_fd, 0.0)
    for number in range(25):
        collector.keep(shared_id(number), Decision(COMPANY, 0, 7), float(number))
        collector.leave_out(shared_id(100 + number))
    assert (tmp_path / "decisions").stat().st_size == 10 * decisions.ENTRY_BYTES
    for reader in (collector, Decisions(folder_fd, 25.0)):
        assert [number for number in range(25) if reader.kept(shared_id(number), 7)] == [*range(15, 25)]
    assert [number for number in range(25) if collector.is_left_out(shared_id(100 + number))] == [*range(15, 25)]
    # The next one writes behind the last entry.
    collector.close()
    heir = Decisions(folder_fd, 25.0)
    heir.keep(shared_id(50), Decision(COMPANY, 0, 7), 26.0)
    heir.close()
    last = Decisions(folder_fd, 27.0)
    assert [number for number in range(51) if last.kept(shared_id(number), 7)] == [*range(16, 25), 50]


@given(st.binary(max_size=200), st.integers(0, 200))
def test_damaged_entry_says_nothing(tmp_path_factory: pytest.TempPathFactory, damage: bytes, at: int) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    writer = Decisions(fd, 0.0)
    for number in range(4):
        writer.keep(shared_id(number), Decision(ERROR, 0, number), 1.0)
    writer.close()
    path = folder / "decisions"
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + damage + whole[at + len(damage) :])
    read_again = Decisions(fd, 2.0)
    os.close(fd)
    assert all(read_again.kept(shared_id(number), 7) in (None, Decision(ERROR, 0, number)) for number in range(4))


def test_randomness_of_nothing_kept_is_below_every_threshold() -> None:
    assert policy("rate=0").judge(seen(ALL - 1), 0.0) is None
