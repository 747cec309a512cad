"""Quantities: "500m", "1.5Gi", "2e3". Exact arithmetic, and the canonical form in which the API
stores them.

A quantity is text in every object; here it becomes a `Fraction`-free exact number (decimal.Decimal
is exact for all suffixes, as each is a product of powers of 2 and 5). The parses are cached, since
a cluster uses few distinct texts.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Context, Decimal
from functools import lru_cache

BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_BY_EXPONENT = {v: k for k, v in DECIMAL.items()}
_BINARY_BY_EXPONENT = {v: k for k, v in BINARY.items()}
_FORM = re.compile(
    r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:(Ki|Mi|Gi|Ti|Pi|Ei)|([numkMGTPE]?)|[eE]([+-]?[0-9]+))",
    re.ASCII,
)
_EXACT = Context(prec=60)
_NANO = Decimal("1e-9")
_LARGEST = Decimal(2**63 - 1)
"""What is larger is taken for this."""
_EXPONENT_DIGITS_MAX = 18

WRONG_FORM = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)
WRONG_NUMBER = "unable to parse numeric part of quantity"
WRONG_SUFFIX = "unable to parse quantity's suffix"


class QuantityError(ValueError):
    """The text is no quantity; the message is kube-apiserver's."""


@lru_cache(maxsize=4096)
def parse(text: str) -> Decimal:
    """The exact value ("500m" -> Decimal("0.500")). Parts below a nano are rounded up, away from
    zero.
    """
    return _split(text)[0]


@lru_cache(maxsize=4096)
def value(text: str) -> int:
    """In whole units, rounded up: bytes of memory, number of pods."""
    return int(parse(text).to_integral_value(ROUND_CEILING))


@lru_cache(maxsize=4096)
def milli_value(text: str) -> int:
    """In thousandths, rounded up: milli-CPUs."""
    return int((parse(text) * 1000).to_integral_value(ROUND_CEILING))


@lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """The form in which the API stores it: "1000m" -> "1", "1024Mi" -> "1Gi", "0.5" -> "500m",
    "1e3" stays "1e3".
    """
    number, family = _split(text)
    return _format(number, family)


def add(a: str, b: str) -> str:
    """The sum, in a's family (b's where a is zero), as Quantity.Add does."""
    left, family = _split(a)
    right, other = _split(b)
    return _format(left + right, family if left else other)


def subtract(a: str, b: str) -> str:
    left, family = _split(a)
    right, other = _split(b)
    return _format(left - right, family if left else other)


@lru_cache(maxsize=4096)
def _split(text: str) -> tuple[Decimal, str]:
    match = _FORM.fullmatch(text)
    if match is None:
        raise QuantityError(_why(text))
    sign, digits, binary, decimal, exponent = match.groups()
    number, family, shift = Decimal(digits), "decimal", DECIMAL[decimal or ""]
    if binary:
        number, family = _EXACT.multiply(number, Decimal(1024 ** BINARY[binary])), "binary"
    elif exponent is not None:
        if len(exponent) > _EXPONENT_DIGITS_MAX:
            raise QuantityError(WRONG_SUFFIX)
        family, shift = "exponent", int(exponent)
    magnitude = number.adjusted() + shift
    if not number:
        return Decimal(0), family
    if magnitude > _LARGEST.adjusted():
        number = _LARGEST
    elif magnitude < _NANO.adjusted():
        number = _NANO
    else:
        number = min(number.scaleb(shift, _EXACT), _LARGEST)
    if number != number.quantize(_NANO, context=_EXACT):
        number = number.quantize(_NANO, ROUND_CEILING, context=_EXACT)
    return (-number if sign == "-" else number), family


def _why(text: str) -> str:
    if not text:
        return "EOF"
    if re.fullmatch(r"[+-]?[0-9.]+[eEinumkKMGTP]*[-+]?[0-9]*", text) is None:
        return WRONG_FORM
    if re.match(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?![0-9.])", text) is None:
        return WRONG_FORM if text.count(".") < 2 else WRONG_NUMBER
    return WRONG_SUFFIX


def _format(number: Decimal, family: str) -> str:
    """Canonical text; family is "decimal" ("1500m"), "binary" ("1536Mi") or "exponent" ("15e2")."""
    if not number:
        return "0"
    sign, number = ("-", -number) if number < 0 else ("", number)
    if family == "binary":
        whole = number.to_integral_value(ROUND_CEILING)
        if number == whole and number >= 1024:
            return sign + _format_binary(int(whole))
        family = "decimal"
    _, digits, exponent = number.normalize(_EXACT).as_tuple()
    assert isinstance(exponent, int)
    mantissa = int("".join(map(str, digits)))
    shift = exponent % 3
    mantissa *= 10**shift
    exponent -= shift
    while exponent > 18:
        mantissa, exponent = mantissa * 1000, exponent - 3
    if family == "exponent":
        return f"{sign}{mantissa}e{exponent}" if exponent else f"{sign}{mantissa}"
    return f"{sign}{mantissa}{_DECIMAL_BY_EXPONENT[exponent]}"


def _format_binary(number: int) -> str:
    exponent = 0
    while exponent < 6 and number % 1024 == 0:
        number, exponent = number // 1024, exponent + 1
    return f"{number}{_BINARY_BY_EXPONENT[exponent]}" if exponent else str(number)
