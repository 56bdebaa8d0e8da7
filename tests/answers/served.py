"""What the servers of lineup.py serve: `wsgi` and `asgi`, in the middleware if ANSWERS_TRACED is 1.

`python served.py wsgiref|gevent PORT` is a server for `wsgi` itself.
"""

import os
import sys
from typing import Any

import asgi_apps
import wsgi_apps

from epsagon_fast.integrations import asgi as asgi_integration
from epsagon_fast.integrations import wsgi as wsgi_integration

wsgi: Any = wsgi_apps.application
asgi: Any = asgi_apps.application
if os.environ.get("ANSWERS_TRACED") == "1":
    wsgi = wsgi_integration.TracingMiddleware(wsgi)
    asgi = asgi_integration.TracingMiddleware(asgi)


def serve_with_wsgiref(port: int) -> None:
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    make_server("127.0.0.1", port, wsgi, handler_class=Quiet).serve_forever()


def serve_with_gevent(port: int) -> None:
    from gevent.pywsgi import WSGIServer

    WSGIServer(("127.0.0.1", port), wsgi, log=None).serve_forever()


if __name__ == "__main__":
    {"wsgiref": serve_with_wsgiref, "gevent": serve_with_gevent}[sys.argv[1]](int(sys.argv[2]))
