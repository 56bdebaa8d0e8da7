"""What the applications do in a request: one call of a library each. They know nothing of tracing.

The environment says where the services are. DATABASE is a PostgreSQL's URL, REDIS a Redis's; HTTP, GRPC and S3 answer.
"""

import asyncio
import logging
import os
import sqlite3
import urllib.request
from collections.abc import Callable
from typing import Any

import aiohttp
import asyncpg
import boto3
import grpc
import httpx
import jinja2
import psycopg
import psycopg2
import redis
import redis.asyncio
import requests
import sqlalchemy
import urllib3
from sqlalchemy.ext.asyncio import create_async_engine

DATABASE = os.environ["DATABASE"]
HTTP = os.environ["HTTP"]
Call = Callable[[], Any]
SYNC: dict[str, Call] = {}
ASYNC: dict[str, Call] = {}
logging.basicConfig(format=os.environ.get("LOG_FORMAT"))
log = logging.getLogger("calls")


def sync(call: Call) -> Call:
    """Take a call into the table of those that block."""
    SYNC[call.__name__.removesuffix("_")] = call
    return call


def awaited(call: Call) -> Call:
    """Take a call into the table of coroutines."""
    ASYNC[call.__name__.removesuffix("_")] = call
    return call


@sync
def psycopg_() -> None:
    with psycopg.connect(DATABASE) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")


@sync
def psycopg2_() -> None:
    connection = psycopg2.connect(DATABASE)
    connection.cursor().execute("SELECT 2")
    connection.close()


@sync
def sqlalchemy_() -> None:
    engine = sqlalchemy.create_engine(DATABASE.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT 3"))


@sync
def sqlite3_() -> None:
    sqlite3.connect(":memory:").cursor().execute("SELECT 4")


@sync
def redis_() -> None:
    redis.Redis.from_url(os.environ["REDIS"]).set("key", "value")


@sync
def jinja2_() -> None:
    jinja2.Template("Hello {{ name }}").render(name="you")


@sync
def httpx_() -> None:
    httpx.get(HTTP + "httpx")


@sync
def requests_() -> None:
    requests.get(HTTP + "requests", timeout=30)


@sync
def urllib_() -> None:
    urllib.request.urlopen(HTTP + "urllib").read()


@sync
def urllib3_() -> None:
    urllib3.PoolManager().request("GET", HTTP + "urllib3")


@sync
def boto3_() -> None:
    boto3.client("s3", endpoint_url=os.environ["S3"], region_name="us-east-1").list_buckets()


@sync
def logging_() -> None:
    log.warning("a line of the log")


@sync
def grpc_() -> None:
    with grpc.insecure_channel(os.environ["GRPC"]) as channel:
        channel.unary_unary("/shop.Shop/Ask")(b"")


@awaited
async def asyncpg_() -> None:
    connection = await asyncpg.connect(DATABASE)
    await connection.execute("SELECT 5")
    await connection.close()


@awaited
async def sqlalchemy_asyncio() -> None:
    engine = create_async_engine(DATABASE.replace("postgresql:", "postgresql+asyncpg:"))
    async with engine.connect() as connection:
        await connection.execute(sqlalchemy.text("SELECT 6"))
    await engine.dispose()


@awaited
async def redis_asyncio() -> None:
    async with redis.asyncio.Redis.from_url(os.environ["REDIS"]) as client:
        await client.get("key")


@awaited
async def httpx_asyncio() -> None:
    async with httpx.AsyncClient() as client:
        await client.get(HTTP + "httpx_asyncio")


@awaited
async def aiohttp_() -> None:
    async with aiohttp.ClientSession() as session, session.get(HTTP + "aiohttp") as answer:
        await answer.read()


@awaited
async def grpc_asyncio() -> None:
    async with grpc.aio.insecure_channel(os.environ["GRPC"]) as channel:
        await channel.unary_unary("/shop.Shop/Ask")(b"")


@awaited
async def requests_in_a_thread() -> None:
    await asyncio.to_thread(requests.get, HTTP + "requests_in_a_thread", timeout=30)
