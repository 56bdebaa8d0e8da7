"""python -m sanic_app PORT"""

import sqlite3
import sys

from sanic import Sanic, text

app = Sanic("hello")


@app.get("/hello/<name>")
async def hello(request, name: str):
    sqlite3.connect(":memory:").cursor().execute("SELECT 1")
    return text(name)


@app.get("/fails/<name>")
async def fails(request, name: str):
    raise ValueError(name)


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(sys.argv[1]), single_process="one" in sys.argv, motd=False)
