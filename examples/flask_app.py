"""gunicorn -c python:epsagon_fast.integrations.gunicorn flask_app:app"""

from flask import Flask

import epsagon_fast as epsagon

app = Flask(__name__)


@app.get("/items/<int:number>")
def item(number: int) -> dict[str, int]:
    epsagon.label("item", number)
    with epsagon.event("look up", type="database", operation="SELECT") as event:
        event.metadata["table"] = "items"
    return {"number": number}


@app.get("/broken")
def broken() -> str:
    raise LookupError("no such shelf")
