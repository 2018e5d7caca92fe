"""Messages and conversations, as a chat template takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation: who speaks, and the text."""

    role: Literal["system", "user", "assistant"]
    content: str


def conversation(question: str, *before: Message) -> tuple[Message, ...]:
    """The conversation that ends with ``question`` as the user's last message."""
    return (*before, Message("user", question))
