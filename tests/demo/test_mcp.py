"""The five endpoints as tools of the Model Context Protocol, where ``gradio[mcp]`` is installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gradio as gr
import httpx
import pytest

from introspection.demo.server.launch import launch, launch_without
from tests.support.page import HALTING, scripted
from tests.support.tab import free_port
from tests.support.tiny import load_tiny

pytestmark = pytest.mark.slow
pytest.importorskip("mcp", reason="needs gradio[mcp]")

HEADERS = {
    "accept": "application/json, text/event-stream",
    "content-type": "application/json",
}


@pytest.fixture(scope="module")
def page() -> Iterator[gr.Blocks]:
    page = launch(load_tiny("llama"), "127.0.0.1", free_port(), block=False, quiet=True)
    yield page
    page.close()


def send(page: gr.Blocks, method: str, **params: Any) -> httpx.Response:
    asked = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    url = page.local_url + "gradio_api/mcp/"
    return httpx.post(url, headers=HEADERS, json=asked, timeout=60)


def ask(page: gr.Blocks, method: str, **params: Any) -> dict[str, Any]:
    told = send(page, method, **params)
    assert told.status_code == 200, told.text
    (line,) = [line for line in told.text.splitlines() if line.startswith("data: ")]
    answer: dict[str, Any] = json.loads(line.removeprefix("data: "))
    return answer


def use(page: gr.Blocks, name: str, **arguments: Any) -> tuple[bool, str]:
    """(whether it was refused, text) of a tool."""
    result = ask(page, "tools/call", name=name, arguments=arguments)["result"]
    return result["isError"], result["content"][0]["text"]


def test_the_five_endpoints_are_the_tools_and_nothing_else_is_offered(page: gr.Blocks) -> None:
    tools = {tool["name"]: tool for tool in ask(page, "tools/list")["result"]["tools"]}
    assert list(tools) == ["report", "compare", "sweep", "concepts", "health"]
    assert all(tool["description"].strip() for tool in tools.values())
    for name, required in (("report", 1), ("compare", 1), ("sweep", 2)):
        schema = tools[name]["inputSchema"]
        assert len(schema["required"]) == required
        assert schema["properties"]["concept"]["type"] == "string"
        assert all(p["type"] and p["description"] for p in schema["properties"].values())
    assert tools["sweep"]["inputSchema"]["properties"]["strengths"]["items"] == {"type": "number"}
    for kind in ("resources", "prompts"):
        assert ask(page, f"{kind}/list")["result"] == {kind: []}
    assert "not found" in ask(page, "resources/read", uri="file:///etc/passwd")["error"]["message"]


def test_tools_answer_as_the_endpoints_do(page: gr.Blocks) -> None:
    refused, text = use(page, "compare", concept="ocean", strength=2.0)
    assert not refused and "adapter_thought" in text and "adapter_clean" in text
    assert "'status': 'ok'" in use(page, "health")[1]
    assert use(page, "sweep", concept="ocean", strengths=[0, 1])[1].count("'line'") == 2
    assert "ocean" in use(page, "concepts")[1]


BAD: list[tuple[str, dict[str, Any]]] = [
    ("compare", {}),
    ("compare", {"concept": ["ocean"]}),
    ("report", {"concept": "ocean", "schedule": "later"}),
    ("sweep", {"concept": "ocean", "strengths": [0.0] * 9}),
    ("begin", {"concept": "ocean"}),
]


def test_tools_refuse_in_words(page: gr.Blocks) -> None:
    for name, arguments in BAD:
        refused, text = use(page, name, **arguments)
        assert refused and len(text.split()) > 3, (name, arguments, text)
        assert "Traceback" not in text and "<" not in text, text


def test_the_guards_stand_before_the_tools_too(page: gr.Blocks) -> None:
    large = send(page, "tools/call", name="compare", arguments={"concept": "x" * 70_000})
    assert large.status_code == 413
    url = page.local_url + "gradio_api/mcp/"
    for body in (b"", b"{", b"[]", b"null", b"\xff", b'{"jsonrpc": "2.0"}', b"[" * 5_000):
        for path in ("", "messages/", "messages/?session_id=1", "nowhere"):
            told = httpx.post(url + path, headers=HEADERS, content=body, timeout=30)
            assert told.status_code < 500 and "Traceback" not in told.text, (path, body, told)
    # A page of somebody else, open in the same browser.
    elsewhere = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    told = httpx.options(url, headers=elsewhere)
    assert "access-control-allow-origin" not in told.headers


def test_tools_wait_in_the_queue(page: gr.Blocks, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = scripted(monkeypatch, HALTING, pause=0.005)
    with ThreadPoolExecutor(4) as pool:
        told = list(
            pool.map(lambda name: use(page, "compare", concept=name), ["ocean", "bomb"] * 2)
        )
    assert not any(refused for refused, _ in told)
    assert seen["overlap"] == 1 and seen["closed"] == 4


def test_the_page_without_a_model_offers_no_tools() -> None:
    page = launch_without("There is no model.", "127.0.0.1", free_port(), block=False)
    try:
        assert send(page, "tools/list").status_code in (404, 405)
    finally:
        page.close()
