"""JSON files that a BUILD or .bzl file loads."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from modelbuild.errors import LoadError, Location


def read_json(text: str, shown: str) -> Any:
    """The data in the text of a file, shown as `shown` in errors. Raises LoadError.

    Names that a JSON object has twice, and numbers that are none, are errors: what one reader takes of
    them, another does not.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        place = Location(shown, error.lineno, error.colno)
        raise LoadError(f"`{shown}` is not JSON: {error.msg}", location=place) from None
    except ValueError as error:
        raise LoadError(f"`{shown}`: {error}", location=Location(shown)) from None
    except RecursionError:
        raise LoadError(f"`{shown}` is nested too deeply", location=Location(shown)) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"an object has `{next(name for name in found if names.count(name) > 1)}` twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"`{text}` is no number of JSON")
