from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def replay() -> Any:
    """The module replay_events.py, which is also a program to look at the consoles with."""
    spec = importlib.util.spec_from_file_location(
        "replay_events", Path(__file__).with_name("replay_events.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["replay_events"] = module  # dataclasses and annotations look it up
    spec.loader.exec_module(module)
    return module
