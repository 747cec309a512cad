"""`$(NAME)` in commands, arguments and variables. Pure; Kubernetes' rules (expansion.Expand).

`$(NAME)` becomes the variable's value; `$$` is one `$`; a name that is not known stays as written.
"""

from __future__ import annotations

from collections.abc import Mapping


def expand(text: str, variables: Mapping[str, str]) -> str:
    out: list[str] = []
    at = 0
    while True:
        dollar = text.find("$", at)
        if dollar < 0 or dollar + 1 >= len(text):
            out.append(text[at:])
            return "".join(out)
        out.append(text[at:dollar])
        following = text[dollar + 1]
        end = text.find(")", dollar + 2) if following == "(" else -1
        if following == "$":
            out.append("$")
            at = dollar + 2
        elif end >= 0:
            name = text[dollar + 2 : end]
            out.append(variables.get(name, text[dollar : end + 1]))
            at = end + 1
        elif following == "(":
            out.append("$(")
            at = dollar + 2
        else:
            out.append("$" + following)
            at = dollar + 2
