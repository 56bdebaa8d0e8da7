"""The shop's three services, each under `epsagon-fast run`, as `shop/` holds their programs."""

import os
import random
import shutil
import socket
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from epsagon_fast.commands.demo.stage import Failed, Program, Stage, end_of, running

# What the stock has: of globes none is left.
PIECES = {"lamp": 1000, "chair": 1000, "globe": 0}
SALES = 1800
_CELERY_OPTIONS = (
    "--concurrency=1",
    "--loglevel=warning",
    "--without-gossip",
    "--without-mingle",
    "--without-heartbeat",
)


class Services(NamedTuple):
    """The shop while it is open."""

    url: str
    programs: dict[str, Program]
    scratch: str

    def ended(self) -> list[str]:
        """Return the names of those that ended by themselves."""
        return [name for name, program in self.programs.items() if program.poll() is not None]

    def check(self) -> None:
        """Raise Failed if one has ended."""
        if ended := self.ended():
            raise Failed(f"{' and '.join(ended)} ended by itself; {self.said()}")

    def said(self) -> str:
        """Return the last lines of each log."""
        return "; ".join(f"{name} wrote: {end_of(_log(self.scratch, name))}" for name in self.programs)


@contextmanager
def opened(stage: Stage) -> Iterator[Services]:
    """Open the shop for the time of the block."""
    programs = Path(__file__).with_name("shop")
    shutil.copytree(programs, stage.scratch, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__*"))
    environment = stage.environment(**_places(stage.scratch))
    with ExitStack() as ends:
        stock, web = (ends.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2))
        environment["STOCK_URL"] = _url(stock)
        started = {
            name: ends.enter_context(_service(stage, name, words, environment, listener))
            for name, words, listener in (
                ("stock", "gunicorn --workers=1 stock:app", stock),
                ("tasks", "celery --app=tasks worker", None),
                ("web", "gunicorn --workers=2 web:app", web),
            )
        }
        yield Services(_url(web), started, stage.scratch)


@contextmanager
def _service(
    stage: Stage, name: str, words: str, environment: dict[str, str], listener: socket.socket | None
) -> Iterator[Program]:
    print(f"  EPSAGON_APP_NAME={name:5} epsagon-fast run {words}", flush=True)
    program, *rest = words.split()
    # It listens already: a request that comes before gunicorn is ready waits.
    served = [] if listener is None else [f"--bind=fd://{listener.fileno()}", "--no-control-socket"]
    options = served if listener else list(_CELERY_OPTIONS)
    command = [sys.executable, "-m", "epsagon_fast", "run", sys.executable, "-m", program, *rest, *options]
    with running(
        command,
        _log(stage.scratch, name),
        {**environment, "EPSAGON_APP_NAME": name},
        cwd=stage.scratch,
        pass_fds=[listener.fileno()] if listener else [],
    ) as started:
        yield started


def _log(scratch: str, name: str) -> str:
    return os.path.join(scratch, f"{name}.log")


def _url(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def _places(scratch: str) -> dict[str, str]:
    """Make the databases and the broker's folders; return where they are, as the services look for them."""
    places = {
        "SHOP_DATABASE": os.path.join(scratch, "shop.sqlite"),
        "STOCK_DATABASE": os.path.join(scratch, "stock.sqlite"),
        "BROKER_FOLDER": os.path.join(scratch, "broker"),
    }
    os.mkdir(places["BROKER_FOLDER"])
    chance = random.Random(1)
    sales = [(chance.randrange(300), chance.choice([*PIECES])) for _ in range(SALES)]
    with closing(sqlite3.connect(places["SHOP_DATABASE"])) as shop, shop:
        shop.execute("CREATE TABLE orders (number INTEGER, item TEXT, state TEXT)")
        shop.execute("CREATE TABLE sales (customer INTEGER, item TEXT)")
        shop.executemany("INSERT INTO sales VALUES (?, ?)", sales)
    with closing(sqlite3.connect(places["STOCK_DATABASE"])) as stock, stock:
        stock.execute("CREATE TABLE items (name TEXT, pieces INTEGER)")
        stock.executemany("INSERT INTO items VALUES (?, ?)", PIECES.items())
    return places
