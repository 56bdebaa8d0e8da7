"""Tracing of an ASGI application: `app = TracingMiddleware(app)`. Each HTTP request and each websocket is one trace.

The trace is the current one in the application's task. It ends when the application returns; its duration ends with the
last piece of the answer, so work in the background after it belongs to the trace and does not make it longer.
"""

from collections.abc import Awaitable, Callable

from epsagon_fast.producer import current
from epsagon_fast.producer.entering import Entered
from epsagon_fast.producer.left_out import LeftOut, decide
from epsagon_fast.producer.process import process

from .choices import ignored_endpoints
from .web.asgi_request import KINDS, WEBSOCKET, AsgiRequest, Message, Receive, Scope, Send, caller_of, listed
from .web.departures import is_broken, is_departure
from .web.request import KEY, is_under_way, watch_frameworks
from .web.signalled import wait_at_shutdown, wait_when_terminated

Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class TracingMiddleware:
    """An ASGI application around another one; it makes a trace of each request and each websocket."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self._ignored = ignored_endpoints()
        self._is_called = False
        watch_frameworks()
        wait_when_terminated()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or websocket. A lifespan is handed on."""
        if not self._is_called:
            self._is_called = True
            # Only now, because the application may have been made before its server.
            wait_at_shutdown()
        kind = KINDS.get(scope["type"])
        if kind is None:
            # The config is not read yet, because the application may call `init` in its lifespan.
            await self.app(scope, receive, send)
            return
        config = process.config()
        if KEY in scope or not process.records(config):
            await self.app(scope, receive, send)
        elif scope["path"] in self._ignored:
            # A server may begin a connection's next request in the context of the last one.
            with current.within(current.NOT_TRACED):
                await self.app(scope, receive, send)
        elif is_under_way(scope.get("method", WEBSOCKET), scope["path"]):
            await self.app(scope, receive, send)
        else:
            own_id = ""
            if process.samples(config):
                decision = decide(config, caller_of(scope))
                if type(decision) is LeftOut:
                    await self._leave_out(decision, scope, receive, send)
                    return
                own_id = str(decision)
            await self._trace(kind(config, scope, own_id), scope, receive, send)

    async def _leave_out(self, place: LeftOut, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application serve a request of which nothing is recorded."""
        scope[KEY] = True
        try:
            with current.within(place):
                await self.app(scope, receive, send)
        finally:
            del scope[KEY]
            place.is_over = True

    async def _trace(self, request: AsgiRequest, scope: Scope, receive: Receive, send: Send) -> None:
        channel = Channel(request, receive, send)
        with Serving(request, scope, receive):
            await self.app(scope, channel.receive, channel.send)


class Serving(Entered):
    """The block in which an application serves one request."""

    def __init__(self, request: AsgiRequest, scope: Scope, receive: Receive) -> None:
        self._request = request
        self._scope = scope
        self._receive = receive

    def open(self) -> None:
        """Open the trace."""
        # The application gets the server's own scope: what it writes there, a middleware around us finds.
        self._scope[KEY] = True
        self._request.begin()
        self.place = self._request.place

    def close(self, error: BaseException | None) -> None:
        """Close the trace with what became of the request."""
        request, scope = self._request, self._scope
        scope.pop(KEY, None)
        if not request.answered and is_broken(self._receive):
            request.client_leaves()
        request.finish(scope, error)

    def cut_off(self) -> None:
        """Close the trace as unfinished, because an exception from outside is on its way to the application."""
        self._scope.pop(KEY, None)
        self._request.abandon()


class Channel:
    """The server's `receive` and `send` as the application gets them.

    The trace has no reference to it: a task or a timer that outlives the request holds its trace, and must not hold
    what the server keeps for a connection.
    """

    __slots__ = ("_receive", "_request", "_send")

    def __init__(self, request: AsgiRequest, receive: Receive, send: Send) -> None:
        self._request = request
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        """Hand the server's message to the application."""
        message = await self._receive()
        self._request.received(message)
        return message

    async def send(self, message: Message) -> None:
        """Hand the application's message to the server, then take note of it."""
        request = self._request
        if request.client_closed or request.is_over or not isinstance(message, dict):
            # A framework answers a client that has left with an error. No client gets it, so it is not recorded.
            await self._send(message)
            return
        headers = listed(message) if "headers" in message else ()
        is_last = request.is_last(message)
        if is_last:
            # The answer ends before it is sent, because a server may say during the send that the connection ends.
            request.answer_ends()
        try:
            await self._send(message)
        except BaseException as error:
            if is_last:
                request.answer_fails()
            if is_departure(error, told=True):
                request.client_leaves()
            raise
        request.sent(message, headers)
        if is_last:
            request.answer_ends()
