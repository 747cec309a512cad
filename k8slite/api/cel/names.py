"""Names of properties, as expressions spell them. Pure."""

from __future__ import annotations

import re

__all__ = ["escape"]

_RESERVED = frozenset(
    (
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for",
        "function", "if", "import", "let", "loop", "package", "namespace", "return", "var",
        "void", "while",
    )
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")


def escape(name: str) -> str | None:
    """A property's name as expressions spell it; None where they cannot."""
    if _NAME.fullmatch(name) is None:
        return None
    if name in _RESERVED:
        return f"__{name}__"
    name = name.replace("__", "__underscores__").replace(".", "__dot__")
    return name.replace("-", "__dash__").replace("/", "__slash__")
