"""OpenVINO's two files, written so that equal models give equal bytes.

OpenVINO numbers what it makes on the way, and notes how a model came to be. Here layers are named by their
place, and what nothing reads is left out, indentation included.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import openvino as ov

XML_FILE = "model.xml"
BIN_FILE = "model.bin"
_OUTER = ("Parameter", "Result")
"""Layers whose names and tensor names are how a model is called."""


def write(model: Any, directory: Path) -> None:
    """Write `model.xml` and `model.bin` into the new folder `directory`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / XML_FILE
        ov.save_model(model, str(path), compress_to_fp16=False)
        directory.mkdir()
        (directory / BIN_FILE).write_bytes(path.with_suffix(".bin").read_bytes())
        text = normalised(path.read_text(encoding="utf-8"))
    (directory / XML_FILE).write_text(text, encoding="utf-8")


def normalised(text: str) -> str:
    """The same network with names and notes that depend on nothing but the network."""
    network = ET.fromstring(text)  # noqa: S314 - OpenVINO wrote it a moment ago
    network.set("name", "model")
    for number, layer in enumerate(network.iter("layer")):
        if layer.get("type") not in _OUTER:
            layer.set("name", f"{layer.get('type')}_{number}")
        for port in layer.iter("port"):
            names = port.get("names")
            if names is not None and "logits" not in names.split(",") and layer.get("type") not in _OUTER:
                del port.attrib["names"]
    for notes in network.findall("rt_info"):
        network.remove(notes)
    for element in network.iter():
        element.text = (element.text or "").strip() or None
        element.tail = None
    return '<?xml version="1.0"?>\n' + ET.tostring(network, encoding="unicode") + "\n"
