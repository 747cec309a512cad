"""YAML as Kubernetes reads it: JSON in other clothes.

Dates stay text, keys become text, and keys written twice are reported. PyYAML is imported on the
first use, because most processes never see a YAML body.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

YamlError = ValueError
INT_TEXT_MAX = 80
DEPTH_MAX = 200
EVENTS_MAX = 100_000
"""Reading YAML is slow: so many keys, values and brackets take about a second."""
TOO_DEEP = "the document is nested too deeply"
ALIASED_NODES_MAX = 10_000
"""How many more nodes a document may have by its aliases than are written in it."""


@lru_cache(maxsize=1)
def _loader() -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]  # the base is chosen at run time
        problems: list[str] | None = None

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            self.flatten_mapping(node)
            found: dict[Any, Any] = {}
            for key_node, value_node in node.value:
                key = _text_key(self.construct_object(key_node, deep=True))
                if key in found and self.problems is not None:
                    line = key_node.start_mark.line + 1
                    self.problems.append(f'line {line}: key "{key}" already set in map')
                found[key] = self.construct_object(value_node, deep=True)
            return found

    resolvers = {
        first: [(tag, pattern) for tag, pattern in rows if tag != "tag:yaml.org,2002:timestamp"]
        for first, rows in base.yaml_implicit_resolvers.items()
    }
    Loader.yaml_implicit_resolvers = resolvers
    Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
    Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
    Loader.add_constructor(
        "tag:yaml.org,2002:map", lambda loader, node: loader.construct_mapping(node, deep=True)
    )
    return Loader


def _construct_int(loader: Any, node: Any) -> Any:
    """An integer of 64 bits; a larger one is a float, as in JSON, and 1:30 is text."""
    text = loader.construct_scalar(node).replace("_", "").lower()
    if ":" in text or len(text) > INT_TEXT_MAX:
        return loader.construct_scalar(node)
    sign, digits = (-1, text[1:]) if text[0] == "-" else (1, text.lstrip("+"))
    for prefix, base in (("0x", 16), ("0o", 8), ("0b", 2)):
        if digits.startswith(prefix):
            value = sign * int(digits[2:], base)
            break
    else:
        octal = len(digits) > 1 and digits[0] == "0" and not set(digits) - set("01234567")
        value = sign * int(digits, 8 if octal else 10)
    return value if -(2**63) <= value < 2**64 else float(value)


def _construct_float(loader: Any, node: Any) -> Any:
    text = loader.construct_scalar(node)
    if ":" in text or len(text) > INT_TEXT_MAX:
        return text
    return loader.construct_yaml_float(node)


def _text_key(key: Any) -> str:
    if key is True:
        return "true"
    if key is False:
        return "false"
    return "null" if key is None else str(key)


def _check_depth(text: bytes | str) -> None:
    """The parser in C is recursive and ends the process where its stack ends. Raises YamlError."""
    import yaml

    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=_loader())):
        if number > EVENTS_MAX:
            raise YamlError("the document has too many parts; send it as JSON")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                raise YamlError(TOO_DEEP)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_size(root: Any) -> None:
    """Aliases make large documents of small ones. Raises YamlError where they do so in excess."""
    sizes: dict[int, int] = {}
    nodes = 0

    def size_of(node: Any) -> int:
        nonlocal nodes
        known = sizes.get(id(node))
        if known is not None:
            if not known:
                raise YamlError("an anchor contains itself")
            return known
        nodes += 1
        sizes[id(node)], size = 0, 1
        for child in node.value if isinstance(node.value, list) else ():
            for each in child if isinstance(child, tuple) else (child,):
                size += size_of(each)
        sizes[id(node)] = size
        return size

    if size_of(root) - nodes > ALIASED_NODES_MAX:
        raise YamlError("the document contains excessive aliasing")


def load(text: bytes | str, problems: list[str] | None = None) -> Any:
    """The first document. Raises YamlError (a ValueError) with the parser's words."""
    import yaml

    try:
        _check_depth(text)
        loader = _loader()(text)
    except yaml.YAMLError as error:
        raise YamlError(str(error)) from None
    loader.problems = problems
    try:
        if not loader.check_node():
            return None
        node = loader.get_node()
        _check_size(node)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise YamlError(str(error)) from None
    except RecursionError:
        raise YamlError(TOO_DEEP) from None
    finally:
        loader.dispose()


def load_all(text: bytes | str) -> list[Any]:
    """Every document of a stream: manifests separated by `---`; empty ones are left out."""
    import yaml

    try:
        _check_depth(text)
        loaded = yaml.load_all(text, Loader=_loader())  # a safe loader
        return [document for document in loaded if document is not None]
    except yaml.YAMLError as error:
        raise YamlError(str(error)) from None


def dump(value: Any) -> str:
    """Readable YAML, keys in the order given."""
    import yaml

    text: str = yaml.safe_dump(value, sort_keys=False, default_flow_style=False)
    return text
