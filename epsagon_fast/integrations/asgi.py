"""Tracing of an ASGI application: `app = TracingMiddleware(app)`. Each HTTP request and each websocket is one trace.

The trace is the current one in the application's task. It ends when the application returns; its duration ends with the
last piece of the answer, so work in the background after it belongs to the trace and does not make it longer.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from epsagon_fast.digits import number
from epsagon_fast.interrupts import let_pass
from epsagon_fast.producer import current
from epsagon_fast.producer.entering import Entered
from epsagon_fast.producer.left_out import LeftOut, decide
from epsagon_fast.producer.process import process
from epsagon_fast.producer.request_path import Exchange, prepare_exchanges

from .choices import ignored_endpoints, said_lowest_error
from .web.asgi_request import (
    KINDS,
    WEBSOCKET,
    AsgiRequest,
    HttpRequest,
    Message,
    Receive,
    Scope,
    Send,
    caller_of,
    listed,
    server_of,
)
from .web.departures import is_broken, is_departure
from .web.request import KEY, is_under_way, watch_frameworks
from .web.routes import django_route_in_calls
from .web.signalled import wait_at_shutdown, wait_when_terminated

Application = Callable[[Scope, Receive, Send], Awaitable[Any]]
prepare_exchanges(HttpRequest, KEY, caller_of, server_of, number, said_lowest_error, django_route_in_calls)


class TracingMiddleware:
    """An ASGI application around another one; it makes a trace of each request and each websocket."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self._ignored = ignored_endpoints()
        self._is_called = False
        watch_frameworks()
        wait_when_terminated()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Serve one request or websocket. A lifespan is handed on.

        What the application returns goes to the server: one may refuse an answer whose application returns something.
        """
        if not self._is_called:
            self._is_called = True
            # Only now, because the application may have been made before its server.
            wait_at_shutdown()
        channel = Channel(scope, receive, send)
        # Begun inside the `try`, because a signal's handler may raise as soon as the trace is open.
        try:
            if not self._ignored and channel.begin():
                result: Any = await self.app(scope, channel.receive, channel.send)
                if not channel.end():
                    channel.finish()
                return result
        except BaseException as error:
            channel.fail(error)
            raise
        return await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Serve any request or websocket, usual or not."""
        kind = KINDS.get(scope.get("type", ""))
        if kind is None:
            # The config is not read yet, because the application may call `init` in its lifespan.
            return await self.app(scope, receive, send)
        config = process.config()
        if KEY in scope or not process.records(config):
            return await self.app(scope, receive, send)
        if scope.get("path", "") in self._ignored:
            # A server may begin a connection's next request in the context of the last one.
            with current.within(current.NOT_TRACED):
                return await self.app(scope, receive, send)
        if is_under_way(scope.get("method", WEBSOCKET), scope.get("path", "")):
            return await self.app(scope, receive, send)
        own_id = ""
        if process.samples(config):
            decision = decide(config, caller_of(scope))
            if type(decision) is LeftOut:
                return await self._leave_out(decision, scope, receive, send)
            own_id = str(decision)
        return await self._trace(kind(config, scope, own_id), scope, receive, send)

    async def _leave_out(self, place: LeftOut, scope: Scope, receive: Receive, send: Send) -> Any:
        """Let the application serve a request of which nothing is recorded."""
        scope[KEY] = True
        try:
            with current.within(place):
                return await self.app(scope, receive, send)
        finally:
            del scope[KEY]
            place.is_over = True

    async def _trace(self, request: AsgiRequest, scope: Scope, receive: Receive, send: Send) -> Any:
        channel = Channel(scope, receive, send)
        channel.request = request
        with Serving(channel):
            return await self.app(scope, channel.receive, channel.send)


class Serving(Entered):
    """The block in which an application serves one request."""

    def __init__(self, channel: "Channel") -> None:
        self._channel = channel

    def open(self) -> None:
        """Open the trace."""
        request = self._channel.request
        # The application gets the server's own scope: what it writes there, a middleware around us finds.
        self._channel.scope[KEY] = True
        request.begin()
        self.place = request.place

    def close(self, error: BaseException | None) -> None:
        """Close the trace with what became of the request."""
        self._channel.finish(error)

    def cut_off(self) -> None:
        """Close the trace as unfinished, because an exception from outside is on its way to the application."""
        self._channel.cut_off()


class Channel(Exchange):
    """The server's `receive` and `send` as the application gets them.

    The trace has no reference to it: a task or a timer that outlives the request holds its trace, and must not hold
    what the server keeps for a connection.
    """

    __slots__ = ()

    async def receive(self) -> Message:
        """Hand the server's message to the application."""
        message: Message = await self.server_receive()
        if not self.has_received(message):
            self._note(self.request.received, message)
        return message

    async def send(self, message: Message) -> None:
        """Hand the application's message to the server, then take note of it."""
        is_last = self.begins_to_send(message)
        if is_last is None:
            await self._send_any(message)
            return
        try:
            await self.server_send(message)
        except BaseException as error:
            self._is_refused(error, is_last)
            raise
        if not self.has_sent(message, is_last):
            self._note(self.request.sent, message, listed(message))

    async def _send_any(self, message: Message) -> None:
        request = self.request
        if request.client_closed or request.is_over or not isinstance(message, dict):
            # A framework answers a client that has left with an error. No client gets it, so it is not recorded.
            await self.server_send(message)
            return
        headers = listed(message) if "headers" in message else ()
        is_last = bool(self._note(request.is_last, message))
        if is_last:
            # The answer ends before it is sent, because a server may say during the send that the connection ends.
            request.answer_ends()
        try:
            await self.server_send(message)
        except BaseException as error:
            self._is_refused(error, is_last)
            raise
        self._note(request.sent, message, headers)
        if is_last:
            request.answer_ends()

    def _note(self, note: Callable[..., Any], *message: Any) -> Any:
        """Take note of a message that may hold anything: it is between the application and its server."""
        try:
            return note(*message)
        except Exception as error:
            let_pass(error)
            return None

    def _is_refused(self, error: BaseException, is_last: bool) -> None:
        """Take note that the server did not take a message."""
        if is_last:
            self.request.answer_fails()
        if is_departure(error, told=True):
            self.request.client_leaves()

    def fail(self, error: BaseException) -> None:
        """Close the trace, if it is begun: the application has raised."""
        if self.request is None:
            return
        try:
            self.leave()
            self.finish(error)
        except BaseException:
            self.cut_off()
            raise

    def finish(self, error: BaseException | None = None) -> None:
        """Close the trace: the application has returned or raised."""
        self.scope.pop(KEY, None)
        request = self.request
        if not request.answered and is_broken(self.server_receive):
            request.client_leaves()
        request.finish(self.scope, error)

    def cut_off(self) -> None:
        """Close the trace as unfinished, because an exception from outside is on its way to the application."""
        self.scope.pop(KEY, None)
        self.leave()
        self.request.abandon()
