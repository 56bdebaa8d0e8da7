"""What the shop does after it has answered. It knows nothing of tracing: epsagon-fast run celery -A tasks worker"""

import os
import sqlite3

import urllib3
from celery import Celery

app = Celery("tasks", broker_transport="broker:Files")
app.conf.broker_transport_options = {
    "data_folder_in": os.environ["BROKER_FOLDER"],
    "data_folder_out": os.environ["BROKER_FOLDER"],
    "polling_interval": 0.05,
}
app.conf.worker_enable_remote_control = False
pool = urllib3.PoolManager(timeout=30)


class SoldOut(Exception):
    """The last piece went to another order."""


@app.task(ignore_result=True)
def pack(item: str, number: int) -> None:
    answer = pool.request("POST", f"{os.environ['STOCK_URL']}/items/{item}/take")
    if answer.status == 409:
        raise SoldOut(f"order {number}: no {item} is left")
    with sqlite3.connect(os.environ["SHOP_DATABASE"], timeout=30) as shop:
        shop.cursor().execute("UPDATE orders SET state = 'packed' WHERE number = ?", (number,))
