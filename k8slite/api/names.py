"""The grammars of names, labels, ports and addresses, with kube-apiserver's messages.

Each `check_x` returns the list of messages (empty: fine). The common case is one compiled regular
expression.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

Check = Callable[[str], list[str]]

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE = f"({_QUALIFIED})?"
_LABEL_RE = re.compile(_LABEL)
_LABEL_1035_RE = re.compile(_LABEL_1035)
_SUBDOMAIN_RE = re.compile(_SUBDOMAIN)
_QUALIFIED_RE = re.compile(_QUALIFIED)
_VALUE_RE = re.compile(_VALUE)
_WILDCARD_RE = re.compile(rf"\*\.{_SUBDOMAIN}")
_CONFIG_KEY_RE = re.compile(r"[-._a-zA-Z0-9]+")
_PORT_NAME_CHARS = re.compile(r"[-a-z0-9]*")
_PORT_NAME_LETTER = re.compile(r"[a-z]")
_HTTP_HEADER_RE = re.compile(r"[-A-Za-z0-9]+")
_PERCENT_RE = re.compile(r"[0-9]+%")

LABEL_MESSAGE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must"
    " start and end with an alphanumeric character"
)
LABEL_1035_MESSAGE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an"
    " alphabetic character, and end with an alphanumeric character"
)
SUBDOMAIN_MESSAGE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.',"
    " and must start and end with an alphanumeric character"
)
QUALIFIED_MESSAGE = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an"
    " alphanumeric character"
)
VALUE_MESSAGE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.',"
    " and must start and end with an alphanumeric character"
)
EMPTY = "must be non-empty"


def regex_error(message: str, pattern: str, *examples: str) -> str:
    """The text of Kubernetes' validation.RegexError."""
    if not examples:
        return f"{message} (regex used for validation is '{pattern}')"
    shown = " or ".join(f"'{e}', " for e in examples)
    return f"{message} (e.g. {shown}regex used for validation is '{pattern}')"


def max_length(maximum: int) -> str:
    return f"must be no more than {maximum} characters"


def max_bytes(maximum: int) -> str:
    return f"must be no more than {maximum} bytes"


def check_dns_label(text: str) -> list[str]:
    """RFC 1123 label, at most 63 characters: namespaces, containers, volumes."""
    errors = [max_length(63)] if len(text) > 63 else []
    if not _LABEL_RE.fullmatch(text):
        errors.append(regex_error(LABEL_MESSAGE, _LABEL, "my-name", "123-abc"))
    return errors


def check_dns_1035_label(text: str) -> list[str]:
    errors = [max_length(63)] if len(text) > 63 else []
    if not _LABEL_1035_RE.fullmatch(text):
        errors.append(regex_error(LABEL_1035_MESSAGE, _LABEL_1035, "my-name", "abc-123"))
    return errors


def check_dns_subdomain(text: str) -> list[str]:
    """RFC 1123 subdomain, at most 253 characters: most objects' names."""
    errors = [max_length(253)] if len(text) > 253 else []
    if not _SUBDOMAIN_RE.fullmatch(text):
        errors.append(regex_error(SUBDOMAIN_MESSAGE, _SUBDOMAIN, "example.com"))
    return errors


def check_wildcard_subdomain(text: str) -> list[str]:
    errors = [max_length(253)] if len(text) > 253 else []
    if not _WILDCARD_RE.fullmatch(text):
        message = (
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain,"
            " which must consist of lower case alphanumeric characters, '-' or '.' and end with an"
            " alphanumeric character"
        )
        errors.append(regex_error(message, rf"\*\.{_SUBDOMAIN}", "*.example.com"))
    return errors


def check_path_segment(text: str) -> list[str]:
    """Names that are only bound to fit into a URL path: roles, bindings."""
    if text in (".", ".."):
        return [f"may not be '{text}'"]
    return [f"may not contain '{c}'" for c in "/%" if c in text]


@lru_cache(maxsize=8192)
def _qualified(text: str) -> tuple[str, ...]:
    errors: list[str] = []
    prefix, slash, name = text.rpartition("/")
    if text.count("/") > 1:
        example = regex_error(QUALIFIED_MESSAGE, _QUALIFIED, "MyName", "my.name", "123-abc")
        return (
            (
                f"a qualified name {example} with an optional DNS subdomain prefix and '/' (e.g."
                " 'example.com/MyName')"
            ),
        )
    if slash and not prefix:
        errors.append(f"prefix part {EMPTY}")
    elif slash:
        errors.extend(f"prefix part {e}" for e in check_dns_subdomain(prefix))
    if not name:
        errors.append(f"name part {EMPTY}")
    elif len(name) > 63:
        errors.append(f"name part {max_bytes(63)}")
    if not _QUALIFIED_RE.fullmatch(name):
        example = regex_error(QUALIFIED_MESSAGE, _QUALIFIED, "MyName", "my.name", "123-abc")
        errors.append(f"name part {example}")
    return tuple(errors)


def check_qualified_name(text: str) -> list[str]:
    """Keys of labels and annotations, names of resources: an optional DNS prefix, '/', a name."""
    return list(_qualified(text))


def check_label_value(text: str) -> list[str]:
    errors = [max_bytes(63)] if len(text) > 63 else []
    if not _VALUE_RE.fullmatch(text):
        errors.append(regex_error(VALUE_MESSAGE, _VALUE, "MyValue", "my_value", "12345"))
    return errors


def check_env_var_name(text: str) -> list[str]:
    """Since 1.34 any printable ASCII but '=' may name an environment variable."""
    if not text:
        return [
            "environment variable name must consist only of printable ASCII characters other"
            " than '='"
        ]
    if all(" " <= c <= "~" and c != "=" for c in text):
        return []
    return [
        "a valid environment variable name must consist only of printable ASCII characters other"
        " than '='"
    ]


def check_config_key(text: str) -> list[str]:
    """Keys of config maps and secrets: they become file names."""
    errors = [max_length(253)] if len(text) > 253 else []
    if not _CONFIG_KEY_RE.fullmatch(text):
        message = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
        errors.append(regex_error(message, "[-._a-zA-Z0-9]+", "key.name", "KEY_NAME", "key-name"))
    if text in (".", ".."):
        errors.append(f"must not be '{text}'")
    elif text.startswith(".."):
        errors.append("must not start with '..'")
    return errors


def check_port_number(port: int) -> list[str]:
    return [] if 1 <= port <= 65535 else ["must be between 1 and 65535, inclusive"]


def check_port_name(text: str) -> list[str]:
    """IANA service names: at most 15 characters."""
    errors: list[str] = []
    if len(text) > 15:
        errors.append("must be no more than 15 characters")
    if not _PORT_NAME_CHARS.fullmatch(text):
        errors.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not _PORT_NAME_LETTER.search(text):
        errors.append("must contain at least one letter (a-z)")
    if "--" in text:
        errors.append("must not contain consecutive hyphens")
    if text and (text[0] == "-" or text[-1] == "-"):
        errors.append("must not begin or end with a hyphen")
    return errors


def check_http_header_name(text: str) -> list[str]:
    if _HTTP_HEADER_RE.fullmatch(text):
        return []
    message = "a valid HTTP header must consist of alphanumeric characters or '-'"
    return [regex_error(message, "[-A-Za-z0-9]+", "X-Header-Name")]


def is_percent(text: str) -> bool:
    return _PERCENT_RE.fullmatch(text) is not None


def check_percent(text: str) -> list[str]:
    if is_percent(text):
        return []
    message = "a valid percent string must be a numeric string followed by an ending '%'"
    return [regex_error(message, "[0-9]+%", "1%", "93%")]


def as_prefix(text: str) -> str:
    """A generateName as it would look once a suffix is put behind it: a trailing '-' is fine."""
    return text[:-1] + "a" if len(text) > 1 and text.endswith("-") else text
