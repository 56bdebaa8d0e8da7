"""`init` with the 17 arguments of `epsagon` 1.82. Each is honoured, or refused by one warning that says what to do.

As there, a variable of the environment counts before code.
"""

import os
from collections.abc import Iterable
from typing import Any, Final, cast

from epsagon_fast.auto import here
from epsagon_fast.config.options import OPTIONS
from epsagon_fast.integrations import logging
from epsagon_fast.integrations.choices import ENDPOINTS, URLS
from epsagon_fast.log import warn_once
from epsagon_fast.producer import lifecycle

from .settings import settings

# What no longer has a meaning if it is set, or if it is set to what is said here, and what to do instead.
WITHOUT_MEANING: Final[dict[str, str]] = {
    "AUTOWRAPT_BOOTSTRAP": "start the program with `epsagon-fast run`",
    "EPSAGON_DISABLE_LOGGING_ERRORS": "log lines never become errors here",
    "EPSAGON_FASTAPI_ASYNC_MODE": "asynchronous endpoints are always traced",
    "EPSAGON_IGNORE_FLASK_RESPONSE": "EPSAGON_METADATA=TRUE leaves out all bodies",
    "EPSAGON_LOG_TRANSPORT": "set EPSAGON_COLLECTOR_URL to a backend",
    "EPSAGON_REMOVE_EXCEPTION_FRAMES": "local variables are never recorded",
    "EPSAGON_SKIP_HTTP_RESPONSE": "bodies of the answers to outgoing requests are never recorded",
    "EPSAGON_SPLIT_ON_SEND": "EPSAGON_TRIMMING=shorten keeps all events of a large trace",
    "EPSAGON_SSL": "the scheme of EPSAGON_COLLECTOR_URL says it",
}


def init(
    token: str = "",
    app_name: str = "Application",
    collector_url: str | None = None,
    metadata_only: bool = True,
    disable_timeout_send: bool = False,
    use_ssl: bool = True,
    debug: bool = False,
    send_trace_only_on_error: bool = False,
    url_patterns_to_ignore: Iterable[str] | None = None,
    keys_to_ignore: Iterable[str] | None = None,
    keys_to_allow: Iterable[str] | None = None,
    ignored_endpoints: Iterable[str] | None = None,
    split_on_send: bool = False,
    propagate_lambda_id: bool = False,
    logging_tracing_enabled: bool = True,
    step_dict_output_path: list[str] | None = None,
    sample_rate: float = 1,
) -> None:
    """Set the options for traces that open from now on, and trace the libraries that are known, as `run` does.

    token, app_name, collector_url, metadata_only, debug: as in `epsagon_fast.init`. keys_to_ignore: `ignored_keys`
    there. ignored_endpoints: URL paths that are not traced. url_patterns_to_ignore: parts of the hosts
    to which requests are not traced. sample_rate: the share, 0 to 1, of traces that are sent;
    those that failed are sent all the same, and they alone with send_trace_only_on_error. logging_tracing_enabled: log
    records get the ids of their trace. disable_timeout_send, propagate_lambda_id, step_dict_output_path: see
    `lambda_wrapper` and `step_lambda_wrapper`. The others are refused by a warning, and so is a value that is not
    allowed; nothing is raised.
    """
    _refuse("use_ssl", not use_ssl, "the scheme of collector_url says it")
    is_strict = os.environ.get("EPSAGON_PRIVACY", "").lower() == "strict"
    _refuse("keys_to_allow", keys_to_allow and not is_strict, "only EPSAGON_PRIVACY=strict lets just these keys pass")
    _refuse("split_on_send", split_on_send, WITHOUT_MEANING["EPSAGON_SPLIT_ON_SEND"])
    _name_variables_without_meaning()
    ignore(ENDPOINTS, "ignored_endpoints", ignored_endpoints)
    ignore(URLS, "url_patterns_to_ignore", url_patterns_to_ignore)
    settings.minds_deadline = not _said("EPSAGON_DISABLE_ON_TIMEOUT", disable_timeout_send)
    settings.marks_result = _said("EPSAGON_PROPAGATE_LAMBDA_ID", propagate_lambda_id)
    settings.steps_path = _steps_path(step_dict_output_path)
    settings.asked = _allowed(
        application_name=app_name,
        token=token or None,
        collector_url=collector_url or None,
        # The environment says the same in two ways, and counts in either.
        metadata_only=None if os.environ.get("EPSAGON_PRIVACY") else metadata_only,
        debug=debug or None,
        ignored_keys=_names("keys_to_ignore", keys_to_ignore),
        allowed_keys=_names("keys_to_allow", keys_to_allow),
        **_sampling(sample_rate, _said("EPSAGON_SEND_TRACE_ON_ERROR", send_trace_only_on_error)),
    )
    put_in_force()
    _write_ids_into_logs(logging_tracing_enabled)
    if not _said("DISABLE_EPSAGON_PATCH", False):
        here.begin()


def auto_load(_: object = None) -> None:
    """Do what `init` does, by the environment alone."""
    init()


def put_in_force() -> None:
    """Let what `init` and `disable` said count for traces that open from now on."""
    lifecycle.init(**settings.asked, disable=True if settings.is_disabled else None)


def _refuse(name: str, value: object, instead: str) -> None:
    if value:
        warn_once(f"compat {name}", "init(%s=...) has no meaning here: %s", name, instead, about="the old names")


def _name_variables_without_meaning() -> None:
    found = [name for name in WITHOUT_MEANING if os.environ.get(name, "").upper() not in ("", "FALSE")]
    if os.environ.get("EPSAGON_SSL", "").upper() == "TRUE":
        # It asks for what is so anyway.
        found.remove("EPSAGON_SSL")
    if found:
        lines = "; ".join(f"{name}: {WITHOUT_MEANING[name]}" for name in found)
        warn_once("compat variables", "The environment sets what has no meaning here: %s", lines, about="the old names")


def _said(variable: str, by_code: object) -> bool:
    return os.environ.get(variable, "").upper() == "TRUE" or bool(by_code)


def _names(argument: str, names: object) -> list[str] | None:
    """Return names that a program gave; None, and a warning, if they are none."""
    if names is None or isinstance(names, str):
        return [names] if names else None
    try:
        return [*map(str, cast("Iterable[object]", names))]
    except TypeError:
        message = "Ignored: init(%s=...) is a list of names, not a %s"
        warn_once(f"compat type of {argument}", message, argument, type(names).__name__, about="the old names")
        return None


def ignore(variable: str, argument: str, names: Iterable[str] | None) -> None:
    """Leave requests of these URL paths out, or to these URLs, unless the environment names others."""
    known = _names(argument, names)
    # The integrations read it when they begin, which is later than `init`, and maybe in another process.
    if known and os.environ.get(variable, "") in ("", settings.written.get(variable)):
        os.environ[variable] = settings.written[variable] = ",".join(known)


def _steps_path(by_code: list[str] | None) -> list[str] | None:
    text = os.environ.get("EPSAGON_STEPS_OUTPUT_PATH", "")
    return text.split(".") if text else by_code if isinstance(by_code, list) else None


def _sampling(rate: object, only_errors: bool) -> dict[str, Any]:
    """Return our options for how much is sent. `sample_rate` of ours decides before it is known what fails."""
    rate = os.environ.get("EPSAGON_SAMPLE_RATE") or rate
    if only_errors:
        rate = 0
    # Where the new way is set, it counts.
    rule = {} if os.environ.get("EPSAGON_SAMPLING") or str(rate) in ("1", "1.0") else {"sampling": f"rate={rate}"}
    return {"sample_rate": 1.0, **rule}


def _allowed(**values: Any) -> dict[str, Any]:
    """Return the values that our `init` is to be given: not what the environment says, nor what it would refuse."""
    return {name: value for name, value in values.items() if _counts(name, value)}


def _counts(name: str, value: object) -> bool:
    option = OPTIONS[name]
    if value is None or (name not in ("sample_rate", "sampling") and os.environ.get(option.variable or "")):
        return False
    try:
        option.accept(name, value)
    except (TypeError, ValueError) as error:
        warn_once(f"compat {name}", "Ignored: %s", str(error), about="the old names")
        return False
    return True


def _write_ids_into_logs(by_code: bool) -> None:
    text = os.environ.get("EPSAGON_LOGGING_TRACING_ENABLED", "")
    # As there, not in Lambda functions.
    wanted = text.upper() == "TRUE" if text else by_code
    if wanted and "AWS_LAMBDA_FUNCTION_NAME" not in os.environ:
        logging.instrument()
