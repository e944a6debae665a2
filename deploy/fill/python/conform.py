"""Answers the conformance suite (tasks/filltest) with stoker_fill: one JSON object a line.

    go test ./tasks/filltest -run TestPort -v -port 'python3 deploy/fill/python/conform.py'
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any, Dict

import redis

from stoker_fill import Filler


class LoadFailed(Exception):
    """The suite's load failed."""


def say(reply: Dict[str, Any]) -> None:
    print(json.dumps(reply), flush=True)


def hear() -> Dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    request: Dict[str, Any] = json.loads(line)
    return request


def connect(url: str) -> redis.Redis:
    # Longer than the suite holds a command that is to arrive late; a site uses a second.
    return redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5)


def load() -> bytes:
    say({"say": "load"})
    answer = hear()
    if answer["do"] == "failed":
        raise LoadFailed(answer.get("reason"))
    return base64.b64decode(answer.get("value", ""))


def open_filler(s: Dict[str, Any]) -> Filler:
    return Filler(
        queue=connect(s["queue_url"]),
        cache=connect(s["cache_url"]),
        scripts=s["scripts"],
        app=s["app"],
        key_template=s["key_template"],
        fill_limit=s["fill_limit_ms"] / 1000,
        origin_lag=s["origin_lag_ms"] / 1000,
        release=s["release"],
    )


def fetch(filler: Filler, request: Dict[str, Any]) -> Dict[str, Any]:
    key = base64.b64decode(request.get("key", ""))
    tags = [base64.b64decode(t) for t in request.get("tags", [])]
    try:
        got = filler.fetch(key, load, tags=tags, ttl=request.get("ttl_ms", 0) / 1000)
    except (ValueError, LoadFailed) as e:
        return {"say": "done", "error": str(e)}
    value = base64.b64encode(got.value).decode()
    return {"say": "done", "value": value, "hit": got.hit, "stored": got.stored, "release": got.release}


def main() -> None:
    while True:
        request = hear()
        if request["do"] == "open":
            filler = open_filler(request["settings"])
            say({"say": "ready"})
        else:
            say(fetch(filler, request))


if __name__ == "__main__":
    main()
