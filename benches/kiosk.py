"""A small application that knows nothing of tracing: Flask, SQLite, requests and celery. bench_seen.py starts it."""

import logging
import os
import pathlib
import sqlite3

import requests
import sqlalchemy
from celery import Celery
from flask import Flask

app = Flask("kiosk")
tasks = Celery("kiosk", broker="filesystem://")
tasks.conf.broker_transport_options = {
    "data_folder_in": os.environ["KIOSK_MESSAGES"],
    "data_folder_out": os.environ["KIOSK_MESSAGES"],
    "control_folder": os.environ["KIOSK_MESSAGES"],
    "polling_interval": 0.1,
}
log = logging.getLogger("kiosk")
engine = sqlalchemy.create_engine("sqlite://")


@app.get("/orders/<int:number>")
def order(number: int) -> str:
    """Ask the database in the three ways that people do, and another service; leave the rest to a task."""
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT 'by SQLAlchemy'")).fetchall()
    database = sqlite3.connect(":memory:")
    database.cursor().execute("SELECT 'by a cursor'").fetchall()
    database.execute("SELECT 'by the connection'").fetchall()
    database.close()
    requests.get(f"{os.environ['KIOSK_STOCK']}/stock/{number}", timeout=10)
    wrap.delay(number)
    log.warning("the till is open")
    return "thanks"


@app.get("/broken/<int:number>")
def broken(number: int) -> str:
    """Fail, as the application's author did not expect."""
    log.warning("the till is jammed")
    return open_drawer("drawer")


def open_drawer(part: str) -> str:
    """Fail in a function of its own, with a value that no line of the source shows."""
    weight = "-".join(("seventeen", "stone"))
    # The spring is worn out.
    raise ValueError(f"the {part} is stuck")
    return weight


@tasks.task(ignore_result=True)
def wrap(number: int) -> None:
    """Leave a sign that it was done."""
    pathlib.Path(os.environ["KIOSK_PARCEL"]).touch()
