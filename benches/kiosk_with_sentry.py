"""The application with sentry-sdk as its documentation sets it up; the DSN comes from the environment."""

import sentry_sdk

sentry_sdk.init(traces_sample_rate=1.0)

from kiosk import app, tasks  # noqa: E402, F401 - sentry-sdk is to be first
