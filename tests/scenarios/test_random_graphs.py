"""Random workspaces of genrules, built for real: a build equals a clean build, a second one runs nothing,
an edit runs exactly what it affects, and a revert runs nothing."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelbuild.driver.build import build
from modelbuild.driver.request import BuildRequest
from modelbuild.events import ActionFinished, Event


@st.composite
def workspaces(draw: st.DrawFn) -> tuple[dict[str, str], list[tuple[list[str], str]]]:
    """Source name -> content, and for each genrule its inputs and whether it passes on what it reads."""
    sources = {f"s{i}.txt": draw(st.sampled_from(["a\n", "b\n"])) for i in range(draw(st.integers(1, 3)))}
    names = list(sources)
    rules = []
    for index in range(draw(st.integers(1, 7))):
        inputs = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
        rules.append((inputs, draw(st.sampled_from(["cat $(SRCS)", "cat $(SRCS) | wc -c", "echo same"]))))
        names.append(f"o{index}.txt")
    return sources, rules


def write(root: Path, sources: dict[str, str], rules: list[tuple[list[str], str]]) -> None:
    (root / "modelbuild.toml").write_text("")
    for name, content in sources.items():
        (root / name).write_text(content)
    (root / "BUILD.models").write_text(
        "\n".join(
            f'genrule(name = "t{i}", srcs = {inputs!r}, outs = ["o{i}.txt"], cmd = "({cmd}; echo {i}) > $@")'
            for i, (inputs, cmd) in enumerate(rules)
        )
    )


def run(root: Path) -> dict[str, str]:
    """Build everything; target -> outcome."""
    events: list[Event] = []
    outcome = build(BuildRequest(root, ("//...",), root / "cache", detailed=True, jobs=2), events.append)
    assert outcome.exit_code == 0, events
    return {event.label: event.result for event in events if isinstance(event, ActionFinished)}


def outputs(root: Path, count: int) -> list[str]:
    return [(root / "modelbuild-out" / f"o{i}.txt").read_text() for i in range(count)]


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(workspaces(), st.data())
def test_builds(made: tuple[dict[str, str], list[tuple[list[str], str]]], data: st.DataObject) -> None:
    sources, rules = made
    with tempfile.TemporaryDirectory() as directory:
        root, clean = Path(directory, "ws").resolve(), Path(directory, "clean").resolve()
        root.mkdir()
        clean.mkdir()
        write(root, sources, rules)
        first = run(root)
        assert len(first) == len(rules)
        assert set(run(root).values()) == {"unchanged"}
        before = outputs(root, len(rules))

        edited = data.draw(st.sampled_from(sorted(sources)))
        (root / edited).write_text("changed\n")
        second = run(root)
        write(clean, sources | {edited: "changed\n"}, rules)
        run(clean)
        after = outputs(root, len(rules))
        assert after == outputs(clean, len(rules))

        changed = {edited} | {f"o{i}.txt" for i in range(len(rules)) if after[i] != before[i]}
        affected = {f"//:t{i}" for i, (inputs, _) in enumerate(rules) if changed & set(inputs)}
        assert {label for label, outcome in second.items() if outcome == "executed"} <= affected
        assert {second[f"//:t{i}"] for i in range(len(rules))} >= ({"executed"} if affected else set())
        assert all(second[f"//:t{i}"] == "unchanged" for i in range(len(rules)) if f"//:t{i}" not in affected)

        (root / edited).write_text(sources[edited])
        assert "executed" not in run(root).values()
        assert outputs(root, len(rules)) == before
