"""The clients of the shop, and what is broken meanwhile."""

from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack

import urllib3

from epsagon_fast.backend.store import Store
from epsagon_fast.commands.demo.account import Asked, asked, compare, table
from epsagon_fast.commands.demo.services import Services, opened
from epsagon_fast.commands.demo.stage import TIMEOUT_S, Failed, Stage, Stay, until

ORDERS = 40
CLIENTS = 4
# The collector is killed when so many orders have been answered.
ORDERS_BEFORE_KILL = 15


def order(number: int) -> Asked:
    """Return an order that goes well."""
    # web: the request, INSERT, a question to the stock, the message to the task. stock: two requests of one statement
    # each. tasks: the task, a request to the stock, UPDATE.
    steps = {"web": (1, 4), "stock": (2, 4), "tasks": (1, 3)}
    return asked("POST", f"/orders/{('lamp', 'chair')[number % 2]}/{number}", 202, steps)


def telling_order(number: int) -> Asked:
    """Return the order that is slow, by one more SELECT, and whose task fails before its UPDATE."""
    steps = {"web": (1, 5), "stock": (2, 4), "tasks": (1, 2)}
    return asked("POST", f"/orders/globe/{number}?suggest", 202, steps)


def deadly_export() -> Asked:
    """Return the request whose worker is killed, so that it has no answer."""
    return asked("GET", "/export", None, {"web": (1, 2)})


def scene(stage: Stage, stay: Stay | None) -> int:
    """Run the scene; return 0 if nothing is missing. `stay`: what to wait for at the end."""
    print("A shop of three services, traced without a change to them:")
    with opened(stage) as services, Store(stage.database) as store:
        requests = _visit(stage, services, store)
        _until_all_is_there(requests, services, store)
        account = compare(requests, store)
        print("\n" + table(account))
        print("\nThe order of the globe. Its SELECT is what takes long, and its task fails after the answer:")
        stage.show(requests[-2].id)
        if stay is None:
            print("(It is gone when this ends. `epsagon-fast demo --keep` leaves all of it up to look around.)")
        else:
            print(f"Order one:     curl -X POST {services.url}/orders/lamp/99")
            stay(stage)
    return 1 if account.missing else 0


def _until_all_is_there(requests: list[Asked], services: Services, store: Store) -> None:
    """Wait until the backend has what these requests must leave, at most for the time in which it must come."""
    until(lambda: not compare(requests, store).missing or bool(services.ended()))
    services.check()


def _visit(stage: Stage, services: Services, store: Store) -> list[Asked]:
    """Ask for everything, and return it."""
    orders, telling, deadly = [order(number) for number in range(ORDERS)], telling_order(ORDERS), deadly_export()
    print(
        f"\n{CLIENTS} clients order {ORDERS} lamps and chairs. Each is packed by a task after its answer.", flush=True
    )
    with ThreadPoolExecutor(CLIENTS) as clients, ExitStack() as end:
        # After a failure or Ctrl-C no client asks for more.
        end.callback(clients.shutdown, wait=False, cancel_futures=True)
        answers = [clients.submit(_ask, services, each) for each in orders]
        for count, _ in enumerate(as_completed(answers)):
            if count == ORDERS_BEFORE_KILL:
                print(f"Meanwhile the collector is killed: kill -9 {stage.kill_collector()}", flush=True)
        for answer in answers:
            answer.result()
    # Else the next order's task waits for forty others, and that is what one would see of it.
    _until_all_is_there(orders, services, store)
    print("One more orders a globe, which is sold out, and asks what others bought with it.", flush=True)
    _ask(services, telling)
    print("One asks for an export, in the middle of which its gunicorn worker is killed.", flush=True)
    _ask(services, deadly)
    return [*orders, telling, deadly]


def _ask(services: Services, each: Asked) -> None:
    """Send a request; Failed if its answer is another one than it must be."""
    # As a proxy in front or a browser would send it: both services and the task carry it on.
    headers = {"traceparent": f"00-{each.id}-{each.id[:16]}-01"}
    status = None
    try:
        url = services.url + each.path
        status = urllib3.request(each.method, url, headers=headers, retries=False, timeout=TIMEOUT_S).status
    except urllib3.exceptions.HTTPError:
        services.check()
    if status != each.status:
        raise Failed(f"{each.method} {each.path} is answered with {status}, not {each.status}; {services.said()}")
