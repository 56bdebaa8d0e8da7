"""What a response, or a failure, means for the trace. Complaints are logged for a person.

2xx is delivered. A status or failure that may pass means that the trace is kept. Every other status is rejected.
"""

import json
import logging
import threading
import time
from collections.abc import Sequence
from datetime import UTC

from epsagon_fast.collector.formats.choice import format_for
from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.collector.sending.answer import Failure, Headers, Response, is_page
from epsagon_fast.digits import number
from epsagon_fast.foreign import shown, url_parts
from epsagon_fast.patterns import pattern
from epsagon_fast.protocol import MASK, Outcome
from epsagon_fast.rows import NamedTuple, maker

# Outcomes are compared by name where each trace has one: comparing them costs several times as much.
ARRIVED = Outcome.DELIVERED.name
# The status of a request that is larger than its server takes.
TOO_LARGE = 413
# OpenTelemetry's Collector says the same with 400, in the words of the library with which Go reads bodies.
TOO_LARGE_IN_GO = b"request body too large"
# Why a trace is rejected to which a page in HTML was answered. It is not kept: a wrong path would give the same page to
# each try, and OTLP has no friendly answer after which a request is made again.
WEB_PAGE = "web_page"
# Statuses of a request in which something is wrong. It may be one trace of many.
BAD_CONTENT = frozenset({400, 422})
# These fail at every try, because the trace's own config is at fault.
HOPELESS = frozenset({"bad_url", "bad_proxy", "bad_token"})
# Between two tries after a failed TLS check: a person has to mend it.
TLS_RETRY_S = 300.0
# A server that asks for a day's patience is asked again sooner.
MAX_RETRY_AFTER_S = 3600.0
LOGGED_BODY_BYTES = 200
# Of a backend's message in the name of a counter.
COUNTED_CHARACTERS = 24
_WORD = pattern("[a-z]+")
# epsagon-go's backend, closed for good: its names will not come back, so its traces are not stored.
CLOSED_SERVICE = ".tc.epsagon.com"
# Destinations whose complaints are remembered. Beyond this number all are forgotten, and may be logged again.
MAX_REMEMBERED = 1000


class Verdict(NamedTuple):
    """The result of one request. It holds for each of its traces.

    `retry`: a later attempt may succeed, after `retry_after_s` seconds if that is not None. The outcome is then STORED,
    which becomes true when the caller has stored the traces. Otherwise the outcome is final.
    `halve`: the server may take the traces, or all but a few, in several requests. `shrink`: and later ones too only in
    smaller requests.
    `at`: monotonic seconds when it was known, which is before the loop takes it.
    """

    trace_ids: Sequence[bytes]
    outcome: Outcome
    retry: bool = False
    retry_after_s: float | None = None
    halve: bool = False
    shrink: bool = False
    at: float = 0.0


_made = maker(Verdict)


class Judge:
    """Turns responses and failures into verdicts. Logs each complaint once per destination until that is well again."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._complaints: dict[Destination, set[str]] = {}

    def answered(self, parcels: Sequence[Parcel], response: Response) -> Verdict:
        """Return the verdict of a server's answer to the request that carried these."""
        if 200 <= response.status < 300:
            return self._welcomed(parcels, response)
        destination, reason = parcels[0].destination, str(response.status)
        if response.status in format_for(destination).transient:
            self._complain(destination, reason, "answered %s; traces wait", reason)
            patience_s = retry_after_s(response.headers, time.time())
            return _verdict(parcels, Outcome.STORED.because(reason), True, patience_s)
        rejected = _verdict(parcels, Outcome.REJECTED.because(reason))
        is_too_large = response.status == TOO_LARGE or TOO_LARGE_IN_GO in response.body
        if len(parcels) > 1 and (is_too_large or response.status in BAD_CONTENT):
            return rejected._replace(halve=True, shrink=is_too_large)
        self._complain(destination, reason, "rejected a trace: %s %s", reason, _said(response, destination))
        return rejected

    def failed(self, parcels: Sequence[Parcel], failure: Failure) -> Verdict:
        """Return the verdict if no answer came."""
        destination, reason = parcels[0].destination, failure.reason
        if reason in HOPELESS:
            self._complain(destination, reason, "is no place to send to, traces are dropped: %s", str(failure))
            return _verdict(parcels, Outcome.DROPPED.because(reason))
        if reason == "dns" and _is_closed_service(destination.url):
            advice = "is closed, traces are dropped; name your backend with EPSAGON_COLLECTOR_URL"
            self._complain(destination, "no_backend", advice)
            return _verdict(parcels, Outcome.DROPPED.because("no_backend"))
        # The failure's text and not the failure, because a kept log record would keep the body with it.
        said = str(Failure(reason, _masked(failure.detail, destination)))
        self._complain(destination, reason, "gives no answer, traces wait: %s", said)
        patience_s = TLS_RETRY_S if reason == "tls" else None
        return _verdict(parcels, Outcome.STORED.because(reason), True, patience_s)

    def _welcomed(self, parcels: Sequence[Parcel], response: Response) -> Verdict:
        destination = parcels[0].destination
        if is_page(response):
            said = _said(response, destination)
            self._complain(destination, WEB_PAGE, "answered with a page for people, traces are rejected: %s", said)
            return _verdict(parcels, Outcome.REJECTED.because(WEB_PAGE))
        refusal = format_for(destination).refusal(response.body, destination.url)
        if refusal is None:
            self._forget(destination)
            return _verdict(parcels, Outcome.DELIVERED)
        word, _, message = refusal.partition(": ")
        reason = _counted(word, _masked(message, destination))
        said = _said(response, destination)
        self._complain(destination, reason, "took a request and not all of it: %s %s", word, said)
        return _verdict(parcels, Outcome.REJECTED.because(reason))

    def _complain(self, destination: Destination, reason: str, message: str, *arguments: object) -> None:
        with self._lock:
            if len(self._complaints) >= MAX_REMEMBERED:
                self._complaints.clear()
            made = self._complaints.setdefault(destination, set())
            if reason in made:
                return
            made.add(reason)
        self._log.warning("%s " + message, destination.origin, *arguments)

    def _forget(self, destination: Destination) -> None:
        # First without the lock, because nearly every answer is a good one.
        if self._complaints and destination in self._complaints:
            with self._lock:
                self._complaints.pop(destination, None)


def _verdict(
    parcels: Sequence[Parcel], outcome: Outcome, retry: bool = False, retry_after_s: float | None = None
) -> Verdict:
    ids = [parcel.trace_id for parcel in parcels]
    return _made((ids, outcome, retry, retry_after_s, False, False, time.monotonic()))


def _counted(word: str, message: str) -> str:
    """Return the reason by which a refusal with this message is counted.

    Without digits, and cut: messages that name a span or a time would each be counted alone.
    """
    told = "_".join(_WORD.findall(message.lower()))[:COUNTED_CHARACTERS]
    return f"{word}_{told}" if told else word


def _said(response: Response, destination: Destination) -> str:
    """Return an answer's body as a log line may show it."""
    return shown(_masked(response.body.decode("utf-8", "replace"), destination), LOGGED_BODY_BYTES)


def _masked(said: str, destination: Destination) -> str:
    """Return a server's or proxy's text without the secrets that we sent it, in any form in which it may quote them."""
    from urllib.parse import quote  # as for foreign.url_parts

    chosen = json.loads(destination.headers or "{}").values()
    for secret in (destination.token, *chosen, *_credentials(destination.proxy_url)):
        for form in (secret, json.dumps(secret)[1:-1], quote(secret, safe=""), quote(secret)):
            said = said.replace(form, MASK) if form else said
    return said


def _is_closed_service(url: str) -> bool:
    return (url_parts(url).hostname or "").endswith(CLOSED_SERVICE)


def _credentials(proxy_url: str | None) -> list[str]:
    auth, _, _ = url_parts(proxy_url or "").netloc.rpartition("@")
    if not auth:
        return []
    # Few proxies want credentials.
    from base64 import b64encode
    from urllib.parse import unquote

    plain = unquote(auth)
    return [b64encode(plain.encode()).decode(), plain, plain.partition(":")[2]]


def retry_after_s(headers: Headers, now: float) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110, 10.2.3), at most MAX_RETRY_AFTER_S.

    `now`: the wall clock, which is used for a date if the answer has no Date. Returns None for no header or nonsense.
    """
    value = headers.get("Retry-After", "").strip()
    if (seconds := number(value)) is not None:
        return min(float(seconds), MAX_RETRY_AFTER_S)
    until = _unix_time(value)
    if until is None:
        return None
    # Measured by the server's clock, because ours may be wrong.
    said_at = _unix_time(headers.get("Date", ""))
    return min(max(0.0, until - (now if said_at is None else said_at)), MAX_RETRY_AFTER_S)


def _unix_time(http_date: str) -> float | None:
    if not http_date:
        return None
    from email.utils import parsedate_to_datetime  # takes long to import, and few answers have a date

    try:
        moment = parsedate_to_datetime(http_date)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
