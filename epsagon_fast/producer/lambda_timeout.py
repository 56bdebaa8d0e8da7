"""How long before its timeout a Lambda's trace must be sent, because the service then ends its process."""

import os

from epsagon_fast.digits import number, signed
from epsagon_fast.hints import Final

DEFAULT_LAMBDA_TIMEOUT_THRESHOLD_MS: Final = 200


def get_lambda_timeout_threshold_ms() -> int:
    """Return how many milliseconds before a Lambda's timeout its trace must be sent.

    EPSAGON_LAMBDA_TIMEOUT_THRESHOLD_MS, else 200 (epsagon-go's GetLambdaTimeoutThresholdMs).
    """
    text = os.environ.get("EPSAGON_LAMBDA_TIMEOUT_THRESHOLD_MS", "")
    found = number(text[1:]) if text.startswith("+") else signed(text)
    return DEFAULT_LAMBDA_TIMEOUT_THRESHOLD_MS if found is None else found
