"""`epsagon_fast.compat.wrapper`, a Lambda function's handler that calls the one that EPSAGON_HANDLER names, traced."""

import os
from importlib import import_module
from typing import Any

from epsagon_fast.pages import see

from .lambdas import lambda_wrapper
from .options import init


def named_handler() -> Any:
    """Return the function that EPSAGON_HANDLER names: `folder/module.function`. ValueError if it names none."""
    name = os.environ.get("EPSAGON_HANDLER", "")
    module, dot, function = name.rpartition(".")
    if not (module and dot and function):
        raise ValueError(
            f"EPSAGON_HANDLER={name!r} must name a module and a function: module.function{see('the old names')}"
        )
    return getattr(import_module(module.replace("/", ".")), function)


init()
wrapper = lambda_wrapper(named_handler())
