"""Small checks that many kinds share. Each appends to a list of errors and returns nothing."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from typing import Any

from k8slite.api import names, quantity
from k8slite.api.meta import Obj
from k8slite.api.status import (
    FieldError,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from k8slite.api.validation.objectmeta import validate_labels

Errors = list[FieldError]

NOT_NEGATIVE = "must be greater than or equal to 0"
POSITIVE = "must be greater than 0"
IP_MESSAGE = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"


def check_all(messages: Iterable[str], path: str, value: Any, errors: Errors) -> None:
    for message in messages:
        errors.append(invalid_value(path, value, message))


def not_negative(value: int | None, path: str, errors: Errors) -> None:
    if value is not None and value < 0:
        errors.append(invalid_value(path, value, NOT_NEGATIVE))


def positive(value: int | None, path: str, errors: Errors) -> None:
    if value is not None and value <= 0:
        errors.append(invalid_value(path, value, POSITIVE))


def one_of(value: Any, supported: Collection[str], path: str, errors: Errors) -> None:
    """`supported` is shown in its own order."""
    if value not in supported:
        errors.append(not_supported(path, value, supported))


def port_number(value: int, path: str, errors: Errors) -> None:
    if not 1 <= value <= 65535:
        errors.append(invalid_value(path, value, "must be between 1 and 65535, inclusive"))


def port_number_or_name(value: Any, path: str, errors: Errors) -> None:
    if isinstance(value, int):
        port_number(value, path, errors)
    else:
        check_all(names.check_port_name(value), path, value, errors)


def is_ip(text: str) -> bool:
    """As Go's old parser: leading zeros in IPv4 octets are allowed."""
    return parse_ip(text) is not None


def parse_ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def ip_address(value: str, path: str, errors: Errors) -> None:
    if not is_ip(value):
        errors.append(invalid_value(path, value, IP_MESSAGE))


def label_selector(selector: Obj, path: str, errors: Errors) -> None:
    """A LabelSelector object: its labels and expressions."""
    if selector.get("matchLabels"):
        validate_labels(selector["matchLabels"], f"{path}.matchLabels", errors)
    for i, expression in enumerate(selector.get("matchExpressions") or ()):
        at = f"{path}.matchExpressions[{i}]"
        operator, values = expression.get("operator", ""), expression.get("values") or []
        if operator in ("In", "NotIn"):
            if not values:
                errors.append(
                    required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'")
                )
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                errors.append(forbidden_field(f"{at}.values", detail))
        else:
            errors.append(
                invalid_value(f"{at}.operator", operator, "not a valid selector operator")
            )
        key = expression.get("key", "")
        check_all(names.check_qualified_name(key), f"{at}.key", key, errors)
        for j, value in enumerate(values):
            check_all(names.check_label_value(value), f"{at}.values[{j}]", value, errors)


def int_or_percent(value: Any, path: str, errors: Errors) -> None:
    if isinstance(value, str):
        if not names.is_percent(value):
            message = names.check_percent(value)[0]
            errors.append(invalid_value(path, value, message))
    elif value < 0:
        errors.append(invalid_value(path, value, NOT_NEGATIVE))


def percent_value(value: Any) -> int | None:
    """50 of "50%"; None of what is no percentage."""
    return int(value[:-1]) if isinstance(value, str) and names.is_percent(value) else None


def not_more_than_100_percent(value: Any, path: str, errors: Errors) -> None:
    percent = percent_value(value)
    if percent is not None and percent > 100:
        errors.append(invalid_value(path, value, "must not be greater than 100%"))


def quantity_not_negative(text: str, path: str, errors: Errors) -> None:
    if quantity.parse(text) < 0:
        errors.append(invalid_value(path, text, NOT_NEGATIVE))
