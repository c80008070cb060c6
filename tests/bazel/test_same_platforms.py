"""The same platforms and conditions in a real Bazel: the same branches, the same skips, the same refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.bazel.twins import Twins, labels
from tests.command_line import CommandLine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CASES = Path(__file__).parent / "platforms.txt"
PLATFORMS = ("drone", "fast_drone", "phone", "bare")
DEFINES = ((), ("mode=debug",), ("mode=debug", "speed=fast"))


def theirs(twins: Twins, platform: str, defines: tuple[str, ...], targets: list[str]) -> dict[str, str]:
    flags = [f"--platforms=//d:{platform}", *(f"--define={each}" for each in defines)]
    log = twins.theirs.parent / "bazel.json"
    log.unlink(missing_ok=True)
    twins.bazel(
        "build", "--keep_going", "--noshow_progress", f"--build_event_json_file={log}", *flags, "--", *targets
    )
    events = [json.loads(line) for line in log.read_text().splitlines()]
    found = {}
    sets = {e["id"]["namedSet"]["id"]: e["namedSetOfFiles"] for e in events if "namedSetOfFiles" in e}
    for event in events:
        if (done := event["id"].get("targetCompleted")) and event.get("completed", {}).get("success"):
            (group,) = event["completed"].get("outputGroup", [{"fileSets": []}])
            files = [f for each in group["fileSets"] for f in sets[each["id"]].get("files", ())]
            found[done["label"]] = "".join(Path(f["uri"].removeprefix("file://")).read_text() for f in files)
    return found


def ours(twins: Twins, platform: str, defines: tuple[str, ...], target: str) -> str | None:
    flags = ["--platform", f"//d:{platform}", *(flag for each in defines for flag in ("--define", each))]
    done = CommandLine(twins.ours).run("build", "--json", *flags, "--", target)
    if done.exit_code != 0:
        assert "Traceback" not in done.stderr
        return None
    (result,) = json.loads(done.stdout)["targets"]
    return "".join((twins.ours / path).read_text() for path in result["files"])


@pytest.mark.parametrize("platform", PLATFORMS)
def test_same_branches_and_refusals(twins: Twins, platform: str) -> None:
    text = CASES.read_text()
    files = dict(
        zip(
            re.findall(r"^-- (\S+) --$", text, re.MULTILINE),
            re.split(r"^-- \S+ --\n", text, flags=re.MULTILINE)[1:],
            strict=True,
        )
    )
    twins.put(files)
    targets = [label for label in labels(files) if label.startswith("//p:")]
    different = []
    for defines in DEFINES:
        expected = theirs(twins, platform, defines, targets)
        for target in targets:
            found = ours(twins, platform, defines, target)
            if found != expected.get(target):
                different.append(f"{target} {defines}: Bazel {expected.get(target)!r}, we {found!r}")
    assert not different, "\n".join(different)
