"""docs/guides/events.md describes the events as they are."""

import dataclasses
import re

from modelbuild.events import EVENTS_SCHEMA, Event, event_name
from tests.docs.markdown import ROOT

TEXT = (ROOT / "docs/guides/events.md").read_text()


def sections() -> dict[str, set[str]]:
    """Event name -> the fields that its table names."""
    found = {}
    for part in TEXT.split("\n### ")[1:]:
        name, _, body = part.partition("\n")
        body = body.partition("\n## ")[0]
        cells = [line.split("|")[1] for line in body.splitlines() if line.startswith("| `")]
        found[name.strip()] = {field for cell in cells for field in re.findall(r"`(\w+)`", cell)}
    return found


def test_every_event_with_every_field_is_described() -> None:
    expected = {
        event_name(kind): {field.name for field in dataclasses.fields(kind)} - {"time_s"}
        for kind in Event.__subclasses__()
    }
    assert sections() == expected


def test_the_page_is_of_this_schema() -> None:
    assert f"## Schema {EVENTS_SCHEMA}\n" in TEXT
