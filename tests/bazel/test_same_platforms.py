"""The same platforms and conditions in a real Bazel: the same branches, the same skips, the same refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelbuild.loading.build_options import BuildOptions
from tests.bazel.twins import Twins, labels, unpack
from tests.command_line import CommandLine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CASES = Path(__file__).parent / "platforms.txt"
PLATFORMS = ("drone", "fast_drone", "phone", "bare")
DEFINES = ((), ("mode=debug",), ("mode=debug", "speed=fast"))
NEWER = frozenset({"//p:two", "//p:define_and_cpu", "//p:define_over_cpu"})
"""Bazel 4.2.3 forgets constraint values when it looks for the more specific condition; newer versions do not."""


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


def options(platform: str, defines: tuple[str, ...]) -> BuildOptions:
    pairs = tuple(sorted((each.partition("=")[0], each.partition("=")[2]) for each in defines))
    return BuildOptions(platform=f"//d:{platform}", defines=pairs)


def ours(twins: Twins, platform: str, defines: tuple[str, ...], targets: list[str]) -> dict[str, str]:
    flags = ["--platform", f"//d:{platform}", *(flag for each in defines for flag in ("--define", each))]
    done = CommandLine(twins.ours).run("build", "--keep-going", "--json", *flags, "--", *targets)
    assert done.exit_code in (0, 1), done.stderr
    return {
        result["label"]: "".join((twins.ours / path).read_text() for path in result["files"])
        for result in json.loads(done.stdout)["targets"]
        if result["built"]
    }


@pytest.mark.parametrize("platform", PLATFORMS)
def test_same_branches_and_refusals(twins: Twins, platform: str) -> None:
    files = unpack(CASES.read_text())
    twins.put(files)
    targets = [label for label in labels(files) if label.startswith("//p:") and label not in NEWER]
    different = []
    for defines in DEFINES:
        expected = theirs(twins, platform, defines, targets)
        assert expected
        found = ours(twins, platform, defines, targets)
        different += [
            f"{target} {defines}: Bazel {expected.get(target)!r}, we {found.get(target)!r}"
            for target in targets
            if found.get(target) != expected.get(target)
        ]
    assert not different, "\n".join(different)


def test_constraint_values_count_as_in_newer_versions(twins: Twins) -> None:
    twins.put(unpack(CASES.read_text()))
    expected = theirs(twins, "drone", ("mode=debug",), sorted(NEWER))
    assert expected == {"//p:define_over_cpu": "debug\n"}
    found = ours(twins, "drone", ("mode=debug",), sorted(NEWER))
    assert found == {"//p:two": "both\n", "//p:define_and_cpu": "arm\n"}
