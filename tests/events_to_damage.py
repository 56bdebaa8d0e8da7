"""Events for what reads them in C, with all that it treats in a way of its own; damaged ones are made of them."""

import json
from pathlib import Path

VECTORS = Path(__file__).parent / "golden" / "trim_vectors.jsonl"


def corpus() -> list[bytes]:
    """Events to damage: the seed's, and some with what those have not."""
    lines = VECTORS.read_text("utf-8").split("\n")
    events = [text for line in lines if line for text in json.loads(line)["events"]]
    events += long_events()
    slashes = chr(92) * 62
    # As long as the longest that could be strong, and longer.
    keys = ",".join(f'"{"k" * length}":1' for length in (62, 63, 64, 65, 300))
    return [text.encode() for text in events] + [
        b'\n{ "resource" : {\t"metadata" : { "region" : [ {"a":"]"} ] , "x" : -1.5e3 , "labels":{}} } } ',
        rb'{"\u0072esource":{"m\u0065tadata":{"\u006cabels":"\ud800","regio\u006E":"\"","k\\":null}}}',
        f'{{"resource":{{"metadata":{{"k":"{slashes}","{slashes}":"{slashes}","item_hash":"{slashes}"}}}}}}'.encode(),
        f'{{"resource":{{"metadata":{{{keys}}}}}}}'.encode(),
        f'{{"resource":{{"metadata":{{"k":[{"0.25,-1e9," * 60}0],"l":["{"b" * 600}"]}}}}}}'.encode(),
        b'{"resource":{"metadata":{"k":[' + b'[{"a":' * 40 + b'"b"' + b"}]" * 40 + b'],"region":true}}}',
    ]


def long_events() -> list[str]:
    """Events with values to be shortened: every kind of character and escape, marks, containers."""
    pieces = ["a", "é", "日", "😀", r"\n", r"\\", r"\u00e9", r"\ud83d\ude00", r"\ud83d", "... 7 bytes left out ..."]
    texts = [f"{'b' * (number % 13)}{piece * 60}" for number, piece in enumerate(pieces)]
    texts += [f"{text}... 12345 bytes left out" for text in texts[:3]]
    metadata = [f'{{"k":"{text}","region":"eu","l":["{text}",\n1]}}' for text in texts]
    failed = [f'{{"message":"{text}","traceback":"{text * 4}"}}' for text in texts]
    return [
        f'{{"resource":{{"metadata":{weak}}},"exception":{exception}}}'
        for weak, exception in zip(metadata, failed, strict=True)
    ]


def named_events() -> list[bytes]:
    """Events in which names stand in all ways, or may be hidden, among those that hold none."""
    texts = [
        *(
            "a=1&b=2",
            "x: y",
            "<a b='c'>d</a>",
            "n IN (1, 2) OR n LIKE '%x%'",
            "run --color x -v",
            "http://h:80/x?q=1#y",
        ),
        *(
            "token=x",
            "%74oken=x",
            "http://u:p@h",
            "t\uff4fken: x",
            "\U0001d42bx: y",
            "café: 日本 😀",
            "--token x",
            "%E2%82%AC=x",
        ),
        *(
            '[ "Cookie", "x"]',
            '{"name": "token", "value": "x"}',
            "token LIKE 'x'",
            "(token) VALUES (1)",
            "x" * 300 + ":y",
        ),
    ]
    nested = [json.dumps({"a": [text, 1], "b": text}) for text in texts]
    forms = [*texts, *nested, *map(json.dumps, nested)]
    return [json.dumps({"resource": {"metadata": {"k": text}}}, ensure_ascii=False).encode() for text in forms]


def plain_events() -> list[bytes]:
    """Events of which spans are made without Python, and some that are none, so that damaged ones may become some."""
    own = {"id": "00f067aa0ba902b7", "start_time": 1_700_000_000.123456, "origin": "urllib3", "error_code": 0}
    metadata: list[dict[str, object]] = [
        {"path": "/", "key": "é", "number": -7, "is": False},
        {"a": 'b"', "c": 12, "status_code": "404", "labels": "{}"},
        {"a": ["b", {"c": "\n"}], 'd"': 1.5, "e": "7"},
        {},
    ]
    events = [
        {
            **own,
            "resource": {"name": "shop.test:8080", "type": kind, "operation": "GET", "metadata": each},
            "duration": duration,
            "exception": None,
            "parent_id": "b7ad6b7169203331",
        }
        for kind in ("http", "sql")
        for each in metadata
        for duration in (0.25, 1)
    ]
    texts = [json.dumps(each, separators=(",", ":"), ensure_ascii=False).encode() for each in events]
    return [*texts, *corpus()[:2]]
