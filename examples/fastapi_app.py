"""gunicorn -c python:epsagon_fast.integrations.gunicorn -k uvicorn_worker.UvicornWorker fastapi_app:app"""

from fastapi import FastAPI

import epsagon_fast as epsagon

app = FastAPI()


@app.get("/items/{number}")
async def item(number: int) -> dict[str, int]:
    epsagon.label("item", number)
    with epsagon.event("look up", type="database", operation="SELECT") as event:
        event.metadata["table"] = "items"
    return {"number": number}


@app.get("/broken")
def broken() -> str:
    raise LookupError("no such shelf")
