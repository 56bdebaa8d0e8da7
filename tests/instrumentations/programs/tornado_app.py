"""python -m tornado_app PORT"""

import asyncio
import sys

import tornado.web


class Hello(tornado.web.RequestHandler):
    async def get(self, name: str) -> None:
        self.write(name)


class Fails(tornado.web.RequestHandler):
    async def get(self, name: str) -> None:
        raise ValueError(name)


async def main() -> None:
    app = tornado.web.Application([("/hello/(.*)", Hello), ("/fails/(.*)", Fails)])
    app.listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
