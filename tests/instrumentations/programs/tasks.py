"""A celery application with one task, which asks Redis."""

import os

import calls
from celery import Celery

app = Celery("tasks", broker=os.environ["REDIS"])


@app.task(ignore_result=True)
def pack(what: str) -> None:
    calls.redis_()
