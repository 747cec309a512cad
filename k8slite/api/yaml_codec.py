"""YAML as Kubernetes reads it: JSON in other clothes.

Dates stay text, keys become text, and keys written twice are reported. PyYAML is imported on the
first use, because most processes never see a YAML body.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

YamlError = ValueError


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
    Loader.add_constructor(
        "tag:yaml.org,2002:map", lambda loader, node: loader.construct_mapping(node, deep=True)
    )
    return Loader


def _text_key(key: Any) -> str:
    if key is True:
        return "true"
    if key is False:
        return "false"
    return "null" if key is None else str(key)


def load(text: bytes | str, problems: list[str] | None = None) -> Any:
    """The first document. Raises YamlError (a ValueError) with the parser's words."""
    import yaml

    try:
        loader = _loader()(text)
    except yaml.YAMLError as error:
        raise YamlError(str(error)) from None
    loader.problems = problems
    try:
        return loader.get_data() if loader.check_data() else None
    except yaml.YAMLError as error:
        raise YamlError(str(error)) from None
    except RecursionError:
        raise YamlError("the document is nested too deeply") from None
    finally:
        loader.dispose()


def load_all(text: bytes | str) -> list[Any]:
    """Every document of a stream: manifests separated by `---`; empty ones are left out."""
    import yaml

    try:
        loaded = yaml.load_all(text, Loader=_loader())  # a safe loader
        return [document for document in loaded if document is not None]
    except yaml.YAMLError as error:
        raise YamlError(str(error)) from None


def dump(value: Any) -> str:
    """Readable YAML, keys in the order given."""
    import yaml

    text: str = yaml.safe_dump(value, sort_keys=False, default_flow_style=False)
    return text
