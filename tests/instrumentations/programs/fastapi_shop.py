"""A FastAPI application. GET /call/NAME makes one call."""

import calls
from fastapi import FastAPI

app = FastAPI()


@app.get("/call/{name}")
async def call(name: str) -> str:
    await calls.ASYNC[name]()
    return name
