"""The libraries that OpenTelemetry's project instruments, by the name of the instrumentation's entry point.

Of an instrumentation that is not here, its own metadata says which library it is for.
"""

from typing import Final, NamedTuple


class Library(NamedTuple):
    """What an instrumentation is for.

    module: is imported when the library can be instrumented. distributions: the packages that bring the library.
    suffix: of the instrumentation's own package, behind "opentelemetry-instrumentation-".
    """

    module: str
    distributions: tuple[str, ...]
    suffix: str


def _library(module: str, *distributions: str, suffix: str = "") -> Library:
    return Library(module, distributions, suffix or (distributions or (module,))[0])


LIBRARIES: Final = {
    "aio-pika": _library("aio_pika", "aio-pika"),
    "aiobotocore": _library("aiobotocore.client", "aiobotocore", suffix="botocore"),
    "aiohttp-client": _library("aiohttp", "aiohttp", suffix="aiohttp-client"),
    "aiohttp-server": _library("aiohttp.web", "aiohttp", suffix="aiohttp-server"),
    "aiokafka": _library("aiokafka", "aiokafka"),
    "aiopg": _library("aiopg", "aiopg"),
    "asyncpg": _library("asyncpg", "asyncpg"),
    "botocore": _library("botocore.client", "botocore"),
    "cassandra": _library("cassandra.cluster", "cassandra-driver", "scylla-driver", suffix="cassandra"),
    "confluent_kafka": _library("confluent_kafka", "confluent-kafka"),
    "elasticsearch": _library("elasticsearch", "elasticsearch"),
    "grpc_aio_client": _library("grpc", "grpcio", suffix="grpc"),
    "grpc_aio_server": _library("grpc", "grpcio", suffix="grpc"),
    "grpc_client": _library("grpc", "grpcio", suffix="grpc"),
    "grpc_server": _library("grpc", "grpcio", suffix="grpc"),
    "httpx": _library("httpx", "httpx"),
    "jinja2": _library("jinja2", "jinja2"),
    "kafka": _library("kafka", "kafka-python", "kafka-python-ng", suffix="kafka-python"),
    "mysql": _library("mysql.connector", "mysql-connector-python", suffix="mysql"),
    "mysqlclient": _library("MySQLdb", "mysqlclient"),
    "pika": _library("pika", "pika"),
    "psycopg": _library("psycopg", "psycopg"),
    "psycopg2": _library("psycopg2", "psycopg2", "psycopg2-binary"),
    "pymemcache": _library("pymemcache", "pymemcache"),
    "pymongo": _library("pymongo", "pymongo"),
    "pymssql": _library("pymssql", "pymssql"),
    "pymysql": _library("pymysql", "pymysql"),
    "redis": _library("redis", "redis"),
    "remoulade": _library("remoulade", "remoulade"),
    "sqlalchemy": _library("sqlalchemy", "sqlalchemy"),
    "sqlite3": _library("sqlite3"),
    "tornado": _library("tornado.web", "tornado"),
    "tortoiseorm": _library("tortoise", "tortoise-orm", suffix="tortoiseorm"),
    "urllib": _library("urllib.request", suffix="urllib"),
}
