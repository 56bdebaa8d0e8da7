"""The one form of the backend: its token, where it has one."""

import asyncio
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from epsagon_fast.backend.access import LOGIN, Access, cookie_name
from epsagon_fast.backend.intake import body_of
from epsagon_fast.backend.pages.rendering import page

_MAX_FORM_BYTES = 4096
# Guessing takes longer so.
_WRONG_S = 0.5


class Login:
    """Trades the token for a cookie."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def ask(self, request: Request) -> Response:
        """Answer `GET /login`."""
        return page("login.html", following=_following(request.query_params.get("next", "")), is_wrong=False, here="")

    async def take(self, request: Request) -> Response:
        """Answer `POST /login`."""
        form = parse_qs((await body_of(request, _MAX_FORM_BYTES)).decode("utf-8", "replace"))
        following = _following(form.get("next", [""])[0])
        if not self._access.knows(form.get("token", [""])[0].encode("utf-8", "surrogatepass")):
            await asyncio.sleep(_WRONG_S)
            return page("login.html", 401, following=following, is_wrong=True, here="")
        answer = RedirectResponse(following, 303)
        # Lax: a link to a trace that stands in a chat works; no other site can write with it.
        answer.set_cookie(cookie_name(request.scope), self._access.session, httponly=True, samesite="lax")
        return answer


def _following(text: str) -> str:
    """Return a place on this backend to go to; other sites are none, however they are written."""
    is_here = text.startswith("/") and not text.startswith(("//", "/\\", LOGIN)) and text.isprintable()
    return text if is_here else "/"
