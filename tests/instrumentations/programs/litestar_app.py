"""uvicorn litestar_app:app"""

from litestar import Litestar, get


@get("/hello/{name:str}")
async def hello(name: str) -> str:
    return name


@get("/fails/{name:str}")
async def fails(name: str) -> str:
    raise ValueError(name)


app = Litestar([hello, fails])
