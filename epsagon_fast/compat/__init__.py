"""The names of the tracer `epsagon` 1.82, on this one: `import epsagon_fast.compat as epsagon`.

Programs written for it run as they are, but for the import line. Nothing else of this package imports this folder.

    options.py      `init`, its 17 arguments, and the environment's variables
    recording.py    `label`, `error`, `warning`, `measure`, `disable`, `enable`, `get_trace_url`
    functions.py    `python_wrapper`, and the wrappers of clouds that are not known here
    lambdas.py      `lambda_wrapper`, `step_lambda_wrapper`, `chalice_wrapper`
    deadline.py     sending what is there before a Lambda function's time is up
    steps.py        what the steps of AWS Step Functions hand on in their state
    handler.py      the handler that EPSAGON_HANDLER names, as `wrapper`
    web.py          `flask_wrapper`
    wrappers/       django.py: the middleware, at the place that settings name
"""

from typing import Any

from .functions import azure_wrapper, gcp_wrapper, python_wrapper, tencent_function_wrapper
from .lambdas import chalice_wrapper, lambda_wrapper, step_lambda_wrapper
from .options import auto_load, init
from .recording import disable, enable, error, get_trace_url, label, measure, warning
from .web import flask_wrapper

__all__ = [
    "auto_load",
    "azure_wrapper",
    "chalice_wrapper",
    "disable",
    "enable",
    "error",
    "flask_wrapper",
    "gcp_wrapper",
    "get_trace_url",
    "init",
    "label",
    "lambda_wrapper",
    "measure",
    "python_wrapper",
    "step_lambda_wrapper",
    "tencent_function_wrapper",
    "warning",
]


def __getattr__(name: str) -> Any:
    # As there, it is imported only where a Lambda function is configured to be called by it.
    if name == "wrapper":
        from .handler import wrapper

        return wrapper
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
