"""Reads values of `config` as what they should be. Standard library only.

An operator writes YAML, and `${VAR}` always arrives as text: `"5"` must do where 5 does, and a wrong value must be named
and never be guessed. Each function raises `Misconfigured` with the key's name; without a default the key is required.
Values are never repeated in messages, for they may be secrets.
"""

import re

from _plugin import Misconfigured

_REQUIRED = object()
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}


def _get(config: dict, key: str, default):
    value = config.get(key)
    if value is None:
        if default is _REQUIRED:
            raise Misconfigured(f"config.{key} is required")
        return default, True
    return value, False


def text(config: dict, key: str, default=_REQUIRED) -> str:
    """Text that says something; numbers are taken as they read."""
    value, is_default = _get(config, key, default)
    if is_default:
        return value
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise Misconfigured(f"config.{key} must be text")
    if not str(value).strip():
        raise Misconfigured(f"config.{key} is empty")
    return str(value)


def one_of(config: dict, key: str, words, default=_REQUIRED) -> str:
    """One of a few words."""
    value = text(config, key, default)
    if value not in words:
        raise Misconfigured(f"config.{key} must be one of {', '.join(words)}")
    return value


def integer(config: dict, key: str, default=_REQUIRED, *, least=None, most=None) -> int:
    """A whole number within its bounds."""
    value, is_default = _get(config, key, default)
    if is_default:
        return value
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]+\s*", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Misconfigured(f"config.{key} must be a whole number")
    return _bounded(key, value, least, most)


def number(config: dict, key: str, default=_REQUIRED, *, least=None, most=None) -> float:
    """A finite number within its bounds."""
    value, is_default = _get(config, key, default)
    if is_default:
        return value
    try:
        value = float("x" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        raise Misconfigured(f"config.{key} must be a number") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise Misconfigured(f"config.{key} must be a finite number")
    return _bounded(key, value, least, most)


def _bounded(key, value, least, most):
    if least is not None and value < least:
        raise Misconfigured(f"config.{key} must be at least {least}")
    if most is not None and value > most:
        raise Misconfigured(f"config.{key} must be at most {most}")
    return value


def boolean(config: dict, key: str, default=_REQUIRED) -> bool:
    """True or false, or a word for it."""
    value, is_default = _get(config, key, default)
    if is_default or isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, (str, int)) else ""
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise Misconfigured(f"config.{key} must be true or false")


def seconds(config: dict, key: str, default=_REQUIRED, *, least=0.0, most=None) -> float:
    """A time in seconds from `30s`, `1.5m`, `2h30m`, or a number of seconds."""
    value, is_default = _get(config, key, default)
    if is_default:
        return value
    if isinstance(value, str):
        written = value.strip()
        parts = _DURATION.findall(written)
        if parts and "".join(n + u for n, u in parts) == written:
            return _bounded(key, sum(float(n) * _UNITS[u] for n, u in parts), least, most)
    try:
        return number(config, key, least=least, most=most)
    except Misconfigured as why:
        if "finite" in str(why) or "at " in str(why):
            raise
        raise Misconfigured(f"config.{key} must be a time such as 30s, 5m or 2h") from None


def texts(config: dict, key: str, default=_REQUIRED) -> list:
    """A list of texts; a single text is split at its commas."""
    value, is_default = _get(config, key, default)
    if is_default:
        return value
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list) and all(isinstance(item, str) and item.strip() for item in value):
        return value
    raise Misconfigured(f"config.{key} must be a list of texts")


def mapping(config: dict, key: str, default=_REQUIRED) -> dict:
    """A map."""
    value, is_default = _get(config, key, default)
    if not is_default and not isinstance(value, dict):
        raise Misconfigured(f"config.{key} must be a map")
    return value
