"""Calls of the demo's public API, by bare HTTP or as ``gradio_client`` makes them.

A case has one of ``call`` (endpoint) with ``data``, ``client`` (endpoint) with ``named`` arguments,
``get`` (address) and ``names`` (the endpoints and their arguments).
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import Any

import httpx
from gradio_client import Client
from gradio_client.exceptions import AppError, ValidationError

LONG = 40  # a longer list is kept as its ends and a hash
PARAMETER = ("parameter_name", "parameter_has_default", "parameter_default", "type")


def called(url: str, case: dict[str, Any]) -> Any:
    if "call" in case:
        return _short(_call(url, case["call"], case["data"]))
    if "get" in case:
        answer = httpx.get(url + case["get"], timeout=60)
        return {"status": answer.status_code}
    client = _client(url)
    try:
        if "names" in case:
            return _names(client)
        return {"data": _short(client.predict(api_name=case["client"], **case["named"]))}
    except (AppError, ValidationError, TypeError, ValueError) as error:
        return {"raises": type(error).__name__, "says": str(error)}


@lru_cache(maxsize=1)
def _client(url: str) -> Client:
    return Client(url, verbose=False, analytics_enabled=False)


def _call(url: str, endpoint: str, data: list[Any]) -> dict[str, Any]:
    address = f"{url}/gradio_api/call/{endpoint}"
    with httpx.Client(timeout=120) as web:
        joined = web.post(address, json={"data": data})
        if joined.status_code == 422:
            refused = [part for part in joined.json()["detail"] if not part["is_valid"]]
            return {"refused": {part["parameter_name"]: part["message"] for part in refused}}
        if joined.status_code != 200:
            return {"status": joined.status_code}
        told = web.get(f"{address}/{joined.json()['event_id']}").text
    # A slow answer has heartbeats before it.
    event, _, rest = told.strip().split("\n\n")[-1].partition("\n")
    return {"event": event.removeprefix("event: "), "data": json.loads(rest.removeprefix("data: "))}


def _names(client: Client) -> dict[str, Any]:
    told = client.view_api(return_format="dict", print_info=False)
    assert isinstance(told, dict)
    return {
        name: {
            "arguments": [[p.get(key) for key in PARAMETER] for p in endpoint["parameters"]],
            "returns": [value["type"] for value in endpoint["returns"]],
        }
        for name, endpoint in told["named_endpoints"].items()
    } | {"without a name": len(told["unnamed_endpoints"])}


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _short(part) for key, part in value.items()}
    if isinstance(value, list) and len(value) > LONG:
        digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
        return {"length": len(value), "sha": digest[:8], "first": value[0], "last": value[-1]}
    return [_short(part) for part in value] if isinstance(value, list) else value
