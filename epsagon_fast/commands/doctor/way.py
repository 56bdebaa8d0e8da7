"""The way of a trace: configuration, folders, queue, collector, backend, and the backend's clock."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from urllib.parse import urlsplit

import epsagon_fast as epsagon
import epsagon_fast.commands.doctor.asking as asking
import epsagon_fast.commands.doctor.clock as clock
from epsagon_fast.collector.sending.outbox.directory import own_state_directory
from epsagon_fast.collector.sending.outbox.file import NAME, OutboxFile, failures
from epsagon_fast.config import ResolvedConfig, otlp_url
from epsagon_fast.config.environment import default_url
from epsagon_fast.config.values import host_fault, is_otlp, is_url, posted_url
from epsagon_fast.foreign import origin
from epsagon_fast.producer.process import process
from epsagon_fast.protocol import OTLP_TRACES_PATH, Outcome
from epsagon_fast.queue import folder as folders
from epsagon_fast.queue import launch
from epsagon_fast.queue.overview import look

from .finding import BAD, Finding, ill, odd, well

TRACE_NAME = "epsagon-fast doctor"
START_TIMEOUT_S = 5.0
# What to do about an outcome's reason; a status is looked up by itself.
REMEDIES = {
    **dict.fromkeys(
        ("301", "302", "303", "307", "308"),
        "name in EPSAGON_COLLECTOR_URL where it redirects to, or give the token that it wants: no redirect is followed",
    ),
    "401": "give the token that it wants: EPSAGON_TOKEN",
    "403": "give a token that may do this: EPSAGON_TOKEN",
    "404": "mend the path in EPSAGON_COLLECTOR_URL, which is {path}",
    "405": "mend the path in EPSAGON_COLLECTOR_URL, which is {path}",
    "429": "wait, or ask it for more: it takes no more requests now",
    "bad_proxy": "mend HTTPS_PROXY or HTTP_PROXY",
    "bad_token": "mend EPSAGON_TOKEN or EPSAGON_HEADERS",
    "bad_url": "mend EPSAGON_COLLECTOR_URL",
    "connection": "start it, or mend http(s), host and port in EPSAGON_COLLECTOR_URL; a firewall may stand between",
    "dns": "mend the host in EPSAGON_COLLECTOR_URL, or the names of this machine",
    "no_backend": "name your backend: EPSAGON_COLLECTOR_URL; `epsagon-fast backend` starts one here",
    "otlp_endpoint": "begin EPSAGON_COLLECTOR_URL with otlp+",
    "proxy": "look at HTTPS_PROXY and HTTP_PROXY, or name the host in NO_PROXY",
    "timeout": "look whether it answers, or raise EPSAGON_SEND_TIMEOUT_SEC",
    "web_page": "mend EPSAGON_COLLECTOR_URL: a page for people answers there, as of a login",
    "tls": "name its CA's file in SSL_CERT_FILE, or mend its certificate",
}
# With these the collector got no answer.
SILENT = frozenset({"connection", "dns", "proxy", "tls"})
ANSWERS_NOW = "run this again in a minute, or in five if TLS failed: it answers now, and the collector tries it later"
LOSES = "a reboot loses what is not delivered"
LOOK_THERE = "look at the backend's own log, and at that of the collector"


def findings(config: ResolvedConfig) -> Iterator[Finding]:
    """Yield what is found at each place; a caller ends at the first that is BAD."""
    yield _config(config)
    yield _folder(config)
    folder = folders.resolve(config.runtime_dir)
    was_there = folder.is_held()
    for check in (_state, _queue, _collector):
        yield check(config)
    found = _backend(config)
    if found.verdict == BAD and not was_there:
        # It would stay for this one trace, for as long as the backend is away.
        _dismiss(folder.path)
    yield found
    yield clock.finding(config)


def _dismiss(folder: str) -> None:
    """Ask the collector to leave."""
    with suppress(OSError):
        if pid := look(folder).pid:
            os.kill(pid, signal.SIGTERM)


def _config(config: ResolvedConfig) -> Finding:
    if config.disable:
        text = "DISABLE_EPSAGON, OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER is set: tracing is off"
        return ill("config", text, "unset it", about="options")
    url = os.environ.get("EPSAGON_COLLECTOR_URL", "")
    if url and not is_url(url):
        text = f"EPSAGON_COLLECTOR_URL={origin(url)} cannot be used, so no backend is named"
        do = host_fault(url) or "begin it with http://, https:// or otlp+http://"
        return ill("config", text, do, about="options")
    if config.collector_url == default_url(warn=False):
        text = "no backend is named, and Epsagon's own service is closed"
        return ill("config", text, REMEDIES["no_backend"], about="a backend")
    if not config.enabled:
        text = "EPSAGON_TOKEN is not set: tracing is off"
        return ill("config", text, "set it to what the backend wants", about="options")
    token = "a token is set" if config.token else "no token is needed"
    text = f"{token}, traces go to {origin(config.collector_url)}"
    advised = otlp_url(config.collector_url)
    if advised:
        return odd("config", f"{text}, which looks like an OTLP endpoint", f"name it {advised}", about="OTLP")
    return well("config", text)


def _folder(config: ResolvedConfig) -> Finding:
    try:
        path = folders.resolve(config.runtime_dir).path
    except OSError as error:
        do = "give EPSAGON_RUNTIME_DIR a directory of this user alone (mode 0700)"
        return ill("folder", error.strerror or str(error), do, about="the folder")
    if folders.is_memory(path):
        return well("folder", f"{path} (in memory)")
    text = f"{path} (not in memory: recording may wait for the disk)"
    return odd("folder", text, "name one in /dev/shm: EPSAGON_RUNTIME_DIR", about="the folder")


def _state(config: ResolvedConfig) -> Finding:
    try:
        own_state_directory(config.state_dir)
    except OSError as error:
        text = f"{config.state_dir or 'none'}: {error.strerror or error}; {LOSES}"
        return odd("state", text, "give EPSAGON_STATE_DIR a local directory of this user alone", about="stored traces")
    if not os.access(config.state_dir, os.W_OK):
        do = "make it writable, or name another: EPSAGON_STATE_DIR"
        return odd("state", f"{config.state_dir} cannot be written; {LOSES}", do, about="stored traces")
    if not os.statvfs(config.state_dir).f_bavail:
        do = "make room there, or name another: EPSAGON_STATE_DIR"
        return odd("state", f"{config.state_dir} has no room; {LOSES}", do, about="stored traces")
    return well("state", f"{config.state_dir} keeps what the backend does not take yet")


def _queue(config: ResolvedConfig) -> Finding:
    mine = process.writers.current(config)
    if mine.lacking:
        return ill("queue", f"no ring could be made: {mine.lacking}", "make room in the folder", about="capacity")
    return well("queue", f"a ring that takes records of up to {mine.record_limit_bytes} bytes")


def _collector(config: ResolvedConfig) -> Finding:
    mine = process.writers.current(config)
    if not mine.collector_lives() and not launch.allowed():
        text = "none runs, and EPSAGON_LAUNCH=0 keeps processes from starting one"
        do = "start `epsagon-fast collector` with the same EPSAGON_RUNTIME_DIR, or unset EPSAGON_LAUNCH"
        return ill("collector", text, do, about="starting a collector")
    deadline = time.monotonic() + START_TIMEOUT_S
    while mine.collector_may_come() and not mine.collector_lives() and time.monotonic() < deadline:
        mine.ensure_collector()
        time.sleep(0.01)
    if not mine.collector_lives():
        text = "none runs and none could be started"
        return ill("collector", text, f"look into {mine.path}/log", about="starting a collector")
    return well("collector", "holds the folder")


def _backend(config: ResolvedConfig) -> Finding:
    tracer = epsagon.create_tracer(config)
    began, began_s = time.time(), time.monotonic()
    with tracer:
        took_s = time.monotonic() - began_s
        resource = {"name": TRACE_NAME, "type": "doctor", "operation": "send"}
        tracer.add_event({"resource": resource, "origin": "runner", "start_time": began, "duration": took_s})
    outcome, where = tracer.stop(), origin(config.collector_url)
    if outcome == Outcome.STORED:
        _forget(config, tracer.trace_id)
    if outcome == Outcome.DELIVERED:
        return well("backend", f"{where}: {outcome}")
    if outcome == Outcome.SAMPLED:
        text = f"{where}: the sampling leaves this trace out, so that nothing was sent"
        return odd("backend", text, "unset EPSAGON_SAMPLING and EPSAGON_SAMPLE_RATE to try the rest", about="options")
    if outcome != Outcome.PENDING:
        do = remedy(config, outcome.reason or "")
        return ill("backend", f"{where}: {outcome}", do, about="statuses and retries")
    if not process.writers.current(config).drained():
        text = "the collector does not read the queue"
        return ill("backend", text, "`epsagon-fast status` says why", about="capacity")
    text = f"{where} does not take the trace yet; it is kept and tried again"
    return ill("backend", text, REMEDIES["timeout"], about="statuses and retries")


def remedy(config: ResolvedConfig, reason: str) -> str:
    """Return what to do where a trace did not arrive. `reason`: that of its outcome."""
    # It may be that of an attempt before this one: while a backend is ill, most traces are stored without one.
    if reason in SILENT and asking.headers(config) is not None:
        return ANSWERS_NOW
    return REMEDIES.get(reason, LOOK_THERE).format(path=_path(config.collector_url))


def _forget(config: ResolvedConfig, trace_id: str) -> None:
    """Take the trace out of the outbox: it has told what it was sent for, and would come long after that."""
    for directory in (config.state_dir, folders.resolve(config.runtime_dir).path):
        if not (directory and os.path.exists(os.path.join(directory, NAME))):
            continue
        with suppress(*failures()), closing(OutboxFile(directory, b"", config.state_dir)) as outbox:
            outbox.remove([bytes.fromhex(trace_id)])


def _path(url: str) -> str:
    """Return the path to which traces are posted, as far as it cannot hold a secret."""
    path = urlsplit(posted_url(url)).path.rstrip("/") or (OTLP_TRACES_PATH if is_otlp(url) else "/")
    known = ("/", "/traces", OTLP_TRACES_PATH)
    return path if path in known else f"not shown, as it may hold a secret: {len(path)} characters"
