"""Links between documents lead somewhere."""

from pathlib import Path

import pytest

from tests.docs.markdown import DOCUMENTS, ROOT, anchors, links


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))
def test_links_resolve(document: Path) -> None:
    broken = []
    for link in links(document):
        if link.startswith(("https://", "http://")):
            continue
        path, _, fragment = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (fragment and target.suffix == ".md" and fragment not in anchors(target)):
            broken.append(link)
    assert not broken, f"{document.relative_to(ROOT)} links to {broken}"


@pytest.mark.parametrize("folder", ["docs/guides", "docs/adr"])
def test_every_guide_and_record_is_linked_from_elsewhere(folder: str) -> None:
    linked = {
        (document.parent / link.partition("#")[0]).resolve()
        for document in DOCUMENTS
        for link in links(document)
        if not link.startswith("http")
    }
    lonely = [path.name for path in (ROOT / folder).glob("*.md") if path.resolve() not in linked]
    assert not lonely
