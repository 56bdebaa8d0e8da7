"""OpenTelemetry's own environment, which counts where no backend is named in our words.

A variable for traces alone (`OTEL_EXPORTER_OTLP_TRACES_...`) counts before the one for all signals. What is not allowed
is logged once, without its value, and ignored.
"""

import os
import re

from epsagon_fast.hints import Final, Literal
from epsagon_fast.log import warn_once
from epsagon_fast.protocol import OTLP_TRACES_PATH

from .values import MAX_TIMEOUT_S, absolute, host_fault, is_header, is_plain, is_url, pairs_in

TlsFile = Literal["ca_file", "client_certificate", "client_key"]

# By OTEL_EXPORTER_OTLP_PROTOCOL: what stands before the URL. JSON without one, because that needs no extra.
_FORMATS: Final = {"": "otlp+", "http/json": "otlp+", "http/protobuf": "otlp-protobuf+"}
_TLS_FILES: Final[tuple[tuple[TlsFile, str], ...]] = (
    ("ca_file", "CERTIFICATE"),
    ("client_certificate", "CLIENT_CERTIFICATE"),
    ("client_key", "CLIENT_KEY"),
)
# HTTP's words for what may be said. They travel as a header, which never goes out: see collector/formats/headers.py.
_ENCODINGS: Final = {"gzip": {"Content-Encoding": "gzip"}, "none": {"Content-Encoding": "identity"}}


def url() -> str | None:
    """Return the URL that the environment names for traces, with its format; None: it names none that can be used."""
    own = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip()
    shared = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    if not own and not shared:
        return None
    # The endpoint for traces is used as it is. Without a path that is "/".
    plain = own if own.count("/") > 2 else own + "/"
    plain = plain if own else shared.rstrip("/") + OTLP_TRACES_PATH
    protocol = _variable("PROTOCOL").lower()
    if protocol not in _FORMATS:
        _ignore("PROTOCOL", "http/json or http/protobuf, so JSON is sent")
    named = _FORMATS.get(protocol, _FORMATS[""]) + plain
    if not is_url(named):
        fault = host_fault(named)
        _ignore("ENDPOINT", "an http:// or https:// URL without user name or password" + (fault and f" ({fault})"))
        return None
    return named


def is_off() -> bool:
    """Say whether the environment wants no traces sent to the URL that it names."""
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return disabled or os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"


def headers() -> dict[str, str]:
    """Return the headers of each request, and how it is compressed if that is said."""
    read = pairs_in(_variable("HEADERS"))
    good = {name: value for name, value in read if value is not None and is_header(name, value)}
    if len(good) < len({name.lower() for name, _ in read}):
        _ignore("HEADERS", "name=value pairs, separated by commas, so some of it is left out")
    compression = _variable("COMPRESSION").lower()
    if compression and compression not in _ENCODINGS:
        _ignore("COMPRESSION", "gzip or none")
    return good | _ENCODINGS.get(compression, {})


def timeout_s() -> float | None:
    """Return the seconds that a request may take; the environment has milliseconds."""
    said = _variable("TIMEOUT")
    if not said:
        return None
    if not (re.fullmatch("[0-9]{1,9}", said) and 0 < int(said) <= MAX_TIMEOUT_S * 1000):
        _ignore("TIMEOUT", f"milliseconds, more than 0 and at most {MAX_TIMEOUT_S * 1000:.0f}")
        return None
    return int(said) / 1000


def tls_files() -> list[tuple[TlsFile, str]]:
    """Return the PEM files that are named, by their names in a config's wire form."""
    named = [(name, _variable(variable)) for name, variable in _TLS_FILES]
    return [(name, absolute(path)) for name, path in named if path and is_plain(path)]


def resource_attributes() -> dict[str, str]:
    """Return the attributes of the process that OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME say."""
    variable = "OTEL_RESOURCE_ATTRIBUTES"
    read = pairs_in(os.environ.get(variable, ""), in_keys=True)
    found = {key: value for key, value in read if value is not None and key and is_plain(key + value)}
    if len(found) < len({key for key, _ in read}):
        warn_once(
            variable,
            "%s must be name=value pairs, separated by commas: some of it is left out",
            variable,
            about="OpenTelemetry's environment",
        )
    name = os.environ.get("OTEL_SERVICE_NAME", "").strip()
    return found | ({"service.name": name} if name and is_plain(name) else {})


def _variable(name: str) -> str:
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}", "").strip()
    return own or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()


def _ignore(name: str, allowed: str) -> None:
    warn_once(
        f"OTEL {name}",
        "OTEL_EXPORTER_OTLP_%s is no value that can be used: it must be %s",
        name,
        allowed,
        about="OpenTelemetry's environment",
    )
