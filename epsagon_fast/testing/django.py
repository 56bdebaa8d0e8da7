"""Django's test client, traced: `client_class = TracingClient` in a TestCase.

Django's own client calls the views itself, without a WSGI application that could be wrapped in `TracingMiddleware`. So
this client wraps what it calls.
"""

from collections.abc import Callable, Iterable
from typing import Any

from django.test import Client

from epsagon_fast.integrations.web.request import RequestTrace
from epsagon_fast.integrations.wsgi import TracingMiddleware
from epsagon_fast.producer.current import current_trace

Handler = Callable[[dict[str, Any]], Any]


class TracingClient(Client):  # type: ignore[misc]
    """A `django.test.Client` that makes a trace of each request, as under a server with the WSGI middleware."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.handler: Handler = traced(self.handler)


def traced(handler: Handler) -> Handler:
    """Return a handler of a test client around another one. Both take an environ and return a response."""

    def handle(environ: dict[str, Any]) -> Any:
        answers: list[Any] = []

        def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            response = handler(environ)
            answers.append(response)
            match = response.wsgi_request.resolver_match
            request = current_trace()
            if isinstance(request, RequestTrace) and match is not None:
                request.route = match.route
            start_response(f"{response.status_code} {response.reason_phrase}", list(response.items()))
            return _body(response)

        body = TracingMiddleware(app)(environ, lambda *_: None)
        (response,) = answers
        if _is_stream(response):
            response.streaming_content = body
        return response

    return handle


def _body(response: Any) -> Iterable[bytes]:
    return response.streaming_content if _is_stream(response) else [response.content]


def _is_stream(response: Any) -> bool:
    # The pieces of an asynchronous one come in the event loop, where no WSGI server would ask for them.
    return bool(response.streaming and not response.is_async)
