"""A shop whose orders are packed by a celery worker.

celery -A celery_app worker
python celery_app.py
"""

import os

from celery import Celery, chain

import epsagon_fast as epsagon
from epsagon_fast.integrations.celery import instrument

app = Celery("celery_app", broker=os.environ.get("BROKER_URL", "redis://127.0.0.1:6379/0"))
instrument(app)


@app.task(ignore_result=True)
def pack(order: str) -> str:
    epsagon.label("order", order)
    return f"parcel of {order}"


@app.task(ignore_result=True, bind=True, max_retries=3)
def post(self, parcel: str) -> None:
    if self.request.retries == 0:
        raise self.retry(exc=ConnectionError("the post office does not answer"), countdown=0)


if __name__ == "__main__":
    with epsagon.trace("order") as tracer:
        chain(pack.s("c-17"), post.s()).delay()
        print(tracer.trace_id)
