"""The page of the demo, here and as a Hugging Face Space: settings, imports in their order, start.

``INTROSPECTION_MODEL`` is a preset, a folder or a Hub id; ``INTROSPECTION_ADAPTER`` an adapter
folder, ``none`` for the bare model, or the ``org/name`` of a Hub repository, read as of
``INTROSPECTION_REVISION``. ``INTROSPECTION_ADAPTERS``, a list separated by commas, offers visitors
more of them: folders and ``org/name@sha`` of the Hub, for the same model. ``GRADIO_SERVER_NAME`` and
``GRADIO_SERVER_PORT`` choose the address.
``python app.py --check`` says line by line what works and what does not.
"""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
os.environ.setdefault("MKL_CBWR", "AUTO")  # as in introspection/__main__.py
with suppress(ImportError):
    import_module("spaces")  # on ZeroGPU it has to come before torch


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        return say("app.py takes no argument but --check; its settings are environment variables.")
    try:
        from introspection.io.files import ensure_tempdir

        ensure_tempdir()
        from introspection.demo.server import check, space
        from introspection.errors import IntrospectionError
    except ImportError as error:
        if arguments:
            from introspection.demo.engine import diagnostics

            show(diagnostics.packages())
        return say(f"{error}: run 'make venv' or 'pip install -r requirements.txt'.")
    try:
        if not arguments:
            space.serve()
        return show(check.findings())
    except IntrospectionError as error:
        return say(str(error))
    except KeyboardInterrupt:
        return 130


def say(sentence: str) -> int:
    print(sentence, file=sys.stderr)  # noqa: T201
    return 2


def show(findings: Iterable[Any]) -> int:
    good = True
    for finding in findings:
        mark = "ok" if finding.ok else "problem"
        print(f"{mark:8}{finding.name}: {' '.join(finding.detail.split())}")  # noqa: T201
        good = good and finding.ok
    return 0 if good else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
