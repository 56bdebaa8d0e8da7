"""The shop's front: epsagon-fast run gunicorn web:app

Like the other two services it knows nothing of tracing.
"""

import os
import signal
import sqlite3

import tasks
import urllib3
from flask import Flask, abort, request

app = Flask("web")
pool = urllib3.PoolManager(timeout=30)

# Slow on purpose: no index helps, so each sale is compared with each other.
ALSO_BOUGHT = """
SELECT b.item FROM sales a, sales b WHERE a.item = ? AND a.customer || '' = b.customer || ''
GROUP BY b.item ORDER BY count(*) DESC LIMIT 3
"""


@app.post("/orders/<item>/<int:number>")
def order(item: str, number: int) -> tuple[list[str], int]:
    also = []
    with sqlite3.connect(os.environ["SHOP_DATABASE"], timeout=30) as shop:
        cursor = shop.cursor()
        cursor.execute("INSERT INTO orders VALUES (?, ?, 'new')", (number, item))
        if "suggest" in request.args:
            cursor.execute(ALSO_BOUGHT, (item,))
            also = [name for (name,) in cursor.fetchall()]
    if pool.request("GET", f"{os.environ['STOCK_URL']}/items/{item}").status == 404:
        abort(404)
    tasks.pack.delay(item, number)
    return also, 202


@app.get("/export")
def export() -> str:
    with sqlite3.connect(os.environ["SHOP_DATABASE"], timeout=30) as shop:
        shop.cursor().execute("SELECT * FROM orders")
    # As the kernel does to a process that takes too much memory: no line of Python runs in it after this one.
    os.kill(os.getpid(), signal.SIGKILL)
    return "no client reads this"
