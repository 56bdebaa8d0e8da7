"""How long before its timeout a Lambda's trace must be sent, because the service then ends its process."""

import os

from epsagon_fast.digits import number
from epsagon_fast.hints import Final

DEFAULT_LAMBDA_TIMEOUT_THRESHOLD_MS: Final = 200


def get_lambda_timeout_threshold_ms() -> int:
    """Return how many milliseconds before a Lambda's timeout its trace must be sent.

    EPSAGON_LAMBDA_TIMEOUT_THRESHOLD_MS, else 200 (epsagon-go's GetLambdaTimeoutThresholdMs).
    """
    text = os.environ.get("EPSAGON_LAMBDA_TIMEOUT_THRESHOLD_MS", "")
    digits = text[1:] if text[:1] in ("+", "-") else text
    return int(text) if number(digits) is not None else DEFAULT_LAMBDA_TIMEOUT_THRESHOLD_MS
