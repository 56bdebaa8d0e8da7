"""Who may read and write: all who reach the backend, or those who know its token.

A program sends the token with each request (`Authorization: Bearer`), a browser once at `/login`; from then on a cookie
speaks for it until the backend stops.
"""

import hmac
import secrets
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from epsagon_fast.backend.answers import parting

LOGIN = "/login"
_COOKIE = "epsagon_fast_backend"
# What the page of the login is made of; nothing there is secret.
_PUBLIC = "/static/"

# What a browser says of requests that no other site has caused; programs do not say it.
_OWN_SITES = ("none", "same-origin")


def cookie_name(scope: Scope) -> str:
    """Return the session's cookie's name: all ports of a host share their cookies, and another may have a backend."""
    return f"{_COOKIE}_{(scope.get('server') or ('', 0))[1]}"


class Access:
    """What a request must bring. `token`: None admits all."""

    def __init__(self, token: str | None = None) -> None:
        self._token = None if token is None else token.encode("utf-8", "surrogatepass")
        self.session = secrets.token_urlsafe(32)

    @property
    def is_open(self) -> bool:
        """Whether no token is needed."""
        return self._token is None

    def knows(self, token: bytes) -> bool:
        """Say whether this is the token, in a time that does not tell how much of it is right."""
        return self._token is None or hmac.compare_digest(token, self._token)

    def refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that may not pass, None for one that may."""
        headers = Headers(scope=scope)
        if scope["method"] not in ("GET", "HEAD") and headers.get("sec-fetch-site", "none") not in _OWN_SITES:
            return parting("a page of another site may not write here", 403)
        is_public = scope["path"] == LOGIN or scope["path"].startswith(_PUBLIC)
        if self.is_open or is_public or self._is_known(scope, headers):
            return None
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            here = scope["path"] + ("?" + scope["query_string"].decode("latin-1") if scope["query_string"] else "")
            return RedirectResponse(f"{LOGIN}?next={quote(here, safe='')}", 303)
        return parting(
            "this backend wants its token: Authorization: Bearer <token>", 401, {"WWW-Authenticate": "Bearer"}
        )

    def _is_known(self, scope: Scope, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.knows(token.strip(" \t").encode("latin-1"))
        # Not http.cookies: it stops at the first that it cannot read, and all programs on localhost set their own.
        cookie = cookie_parser(headers.get("cookie", "")).get(cookie_name(scope), "")
        return hmac.compare_digest(cookie.encode("utf-8", "replace"), self.session.encode())
