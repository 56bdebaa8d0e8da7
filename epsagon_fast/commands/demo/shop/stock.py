"""The shop's warehouse, a service of its own. It knows nothing of tracing: epsagon-fast run gunicorn stock:app"""

import os
import sqlite3

from flask import Flask, abort

app = Flask("stock")


@app.get("/items/<item>")
def look(item: str) -> dict[str, int]:
    with sqlite3.connect(os.environ["STOCK_DATABASE"], timeout=30) as stock:
        found = stock.cursor().execute("SELECT pieces FROM items WHERE name = ?", (item,)).fetchone()
    return {"pieces": found[0]} if found else abort(404)


@app.post("/items/<item>/take")
def take(item: str) -> str:
    with sqlite3.connect(os.environ["STOCK_DATABASE"], timeout=30) as stock:
        taken = stock.cursor().execute("UPDATE items SET pieces = pieces - 1 WHERE name = ? AND pieces > 0", (item,))
    return "taken\n" if taken.rowcount else abort(409)
