"""python -m aiohttp_app PORT"""

import sys

from aiohttp import web


async def hello(request: web.Request) -> web.Response:
    return web.Response(text=request.match_info["name"])


async def fails(request: web.Request) -> web.Response:
    raise ValueError(request.match_info["name"])


app = web.Application()
app.add_routes([web.get("/hello/{name}", hello), web.get("/fails/{name}", fails)])

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))
