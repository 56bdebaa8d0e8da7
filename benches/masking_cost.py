"""What masking takes of an event, beside a search for one exact key: `python benches/masking_cost.py`.

Prints the table of docs/masking.md. Both take turns, so that a busy moment of the machine falls on both. Of many
medians the shortest counts. In the last events stands a secret, so they are read and masked.
"""

import json
import sys
from pathlib import Path
from typing import Final

from measure import Row, by_turns

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from records import event

from epsagon_fast.masking import ExactMask, LooseMask
from epsagon_fast.masking.keys import DEFAULT_KEYS

EXACT: Final = ExactMask(("password",))
LOOSE: Final = LooseMask(DEFAULT_KEYS)
ROUNDS: Final = 20
MEDIANS: Final = 100
# Calls of a turn: one alone is not much longer than a look at the clock.
CALLS: Final = 10
PROSE: Final = (
    "The order was shipped to Berlin on Monday and is expected there tomorrow between nine and ten in the morning. A "
    "driver who finds no one at home leaves what fits at the door, or with people who live in the same house. "
)
NUMBERED: Final = (
    "the order of customer was shipped to berlin with parcel number and is expected tomorrow between nine "
)
LOG: Final = "2026-11-29 14:31:39,123 INFO shop.orders: order=17 user=bob took=12ms status=200 path=/orders/17\n"
CUSTOMER: Final = {"first": "Bob", "last": "Miller", "city": "Berlin", "note": "leave at the door"}
ITEMS: Final = [{"sku": f"A-{number}", "count": number, "price": 9.99, "name": "blue shirt"} for number in range(8)]
ORDER: Final = {"id": 17, "items": ITEMS, "customer": CUSTOMER, "paid": True}
ROWS: Final = [{"id": number * 77, "state": "open", "price": 9.99, "customer": CUSTOMER} for number in range(90)]
STATEMENT: Final = (
    "SELECT o.id, o.total, c.name FROM orders AS o JOIN customers AS c ON c.id = o.customer_id WHERE o.state IN "
    "('open', 'paid') AND o.total > 100 AND c.city = 'Berlin' ORDER BY o.created_at DESC LIMIT 50"
)
EVENTS: Final = {
    "small": event(status="ok", method="GET", url="http://shop/orders/17"),
    "ten texts of 80 characters": event(**{f"field_{number}": PROSE[number : number + 80] for number in range(10)}),
    "forty numbers": event(**{f"field_{number}": str(number * 1234567) for number in range(40)}),
    "SQL": event(system="postgresql", name="shop", statement=STATEMENT),
    "JSON": event(body=json.dumps(ORDER)),
    "JSON in JSON in JSON": event(body=json.dumps({"message": json.dumps({"detail": json.dumps(ORDER)})})),
    "JSON, 14 KB": event(body=json.dumps(ROWS)),
    "a log, 10 KB": event(log=LOG * 100),
    "prose, 10 KB": event(text=PROSE * 50),
    "200 texts of 30 characters": event(**{f"field_{number}": PROSE[number : number + 30] for number in range(200)}),
    "prose with `number`, 10 KB": event(text=NUMBERED * 100),
    "200 texts with `side`": event(**{f"field_{number}": f"on the other side {PROSE[:30]}" for number in range(200)}),
    "small, a form with `password`": event(status="ok", method="GET", body="user=bob&password=x"),
    "JSON with `password`": event(body=json.dumps(ORDER | {"password": "x"})),
}


def main() -> None:
    """Print for each event what its masking takes."""
    print("| event | bytes | µs | one exact key, µs | ratio |\n|---|---:|---:|---:|---:|")
    for name, each in EVENTS.items():
        assert LOOSE.may_change(each) == ("`password`" in name)
        calls = [each] * CALLS
        # Only the search, also where the exact key is found.
        rows = {"loose": Row(LOOSE.event, calls), "exact": Row(EXACT.may_change, calls)}
        medians = [by_turns(rows, ROUNDS) for _ in range(MEDIANS)]
        loose_us, exact_us = (min(each[row] for each in medians) / 1000 for row in ("loose", "exact"))
        print(f"| {name} | {len(each):,} | {loose_us:.2f} | {exact_us:.2f} | {loose_us / exact_us:.1f} |", flush=True)


if __name__ == "__main__":
    main()
