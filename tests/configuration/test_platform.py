"""Platforms, compatibility and toolchains: who is built for what, and what is said when that is impossible."""

from __future__ import annotations

import pytest

from modelbuild.errors import AnalysisError, LoadError
from modelbuild.label import parse_label
from modelbuild.platform import PlatformInfo
from tests.configuration.conftest import Analyze, contents


def test_a_platform_takes_over_what_its_parent_states(found: Analyze) -> None:
    analysis = found("", "//platforms:fast-drone")
    info = analysis.requested[parse_label("//platforms:fast-drone")].providers[PlatformInfo]
    assert isinstance(info, PlatformInfo)
    assert (info.cpu, info.os) == ("aarch64", "linux")
    assert info.constraints[parse_label("//platforms:speed")] == parse_label("//platforms:fast")
    assert (info.budget.ram, info.budget.disk) == (512 << 20, 2 * 10**9)


def test_only_what_depends_on_the_platform_is_made_for_it(found: Analyze) -> None:
    text = """
        genrule(name = "shared", outs = ["shared.txt"], cmd = "s")
        genrule(name = "default", srcs = [":shared"], outs = ["d.txt"], cmd = select({"//conditions:default": "d"}))
        genrule(name = "own", srcs = [":default"], outs = ["o.txt"], cmd = select({"@platforms//os:linux": "o"}))
    """
    assert set(contents(found(text, platform="//platforms:drone"))) == {
        "p/shared.txt",
        "p/d.txt",
        "@platforms/drone/p/o.txt",
    }


def test_twelve_platforms_share_one_teacher(found: Analyze) -> None:
    text = """
        load("//toolchains:rule.py", "matrix")
        PLATFORMS = ["p%d" % n for n in range(12)]
        [platform(name = name, constraint_values = ["@platforms//os:linux"]) for name in PLATFORMS]
        genrule(name = "teacher", outs = ["teacher.txt"], cmd = "t")
        genrule(name = "student", srcs = [":teacher"], outs = ["student.txt"], cmd = "s")
        genrule(name = "binary", srcs = [":student"], outs = ["b.txt"], cmd = select({"@platforms//os:linux": "b"}))
        matrix(name = "all_of_them", models = [":binary"], platforms = PLATFORMS)
    """
    owners = [str(action.owner) for action in found(text, "//p:all_of_them").graph.actions]
    assert owners.count("//p:teacher") == owners.count("//p:student") == 1
    assert owners.count("//p:binary") == 12


def test_what_runs_during_the_build_is_built_for_this_machine(found: Analyze) -> None:
    text = """
        CPU = select({"@platforms//cpu:aarch64": "arm", "//conditions:default": "here"})
        genrule(name = "tool", outs = ["tool.sh"], cmd = CPU)
        genrule(name = "data", outs = ["data.txt"], cmd = CPU)
        genrule(name = "g", srcs = [":data"], tools = [":tool"], outs = ["g.txt"], cmd = "$(location :tool) $<")
    """
    made = contents(found(text, "//p:g", platform="//platforms:drone"))
    assert made["p/tool.sh"] == "here"
    assert made["@platforms/drone/p/data.txt"] == "arm"
    assert (
        made["@platforms/drone/p/g.txt"]
        == "modelbuild-out/p/tool.sh modelbuild-out/@platforms/drone/p/data.txt"
    )


COMPATIBLE = """
    genrule(name = "arm", outs = ["a.txt"], cmd = "a", target_compatible_with = ["@platforms//cpu:aarch64"])
    genrule(name = "user", srcs = [":arm"], outs = ["u.txt"], cmd = "u")
    genrule(name = "free", outs = ["f.txt"], cmd = "f")
"""


def test_a_pattern_skips_the_incompatible_and_says_why(found: Analyze) -> None:
    analysis = found(COMPATIBLE, platform="//platforms:phone")
    assert [str(label) for label in analysis.requested] == ["//p:free"]
    reasons = {str(label): reason for label, reason in analysis.skipped}
    assert (
        "must have `@platforms//cpu:aarch64`, and `//platforms:phone` has `@platforms//cpu:x86_32`"
        in reasons["//p:arm"]
    )
    assert reasons["//p:user"].startswith("it needs `//p:arm`: ")
    assert len(found(COMPATIBLE, platform="//platforms:drone").requested) == 3


@pytest.mark.parametrize("name", ["arm", "user"])
def test_the_incompatible_by_name_is_an_error(found: Analyze, name: str) -> None:
    with pytest.raises(
        AnalysisError, match=f"`//p:{name}` cannot be built for `//platforms:phone`"
    ) as caught:
        found(COMPATIBLE, f"//p:{name}", platform="//platforms:phone")
    assert any("must have `@platforms//cpu:aarch64`" in note for note in caught.value.notes)


def test_compatibility_may_be_a_select(found: Analyze) -> None:
    text = """
        genrule(
            name = "g",
            outs = ["o"],
            cmd = "c",
            target_compatible_with = select({
                "@platforms//os:ios": ["@platforms//:incompatible"],
                "//conditions:default": [],
            }),
        )
    """
    assert not found(text, platform="//platforms:phone").requested
    assert found(text, platform="//platforms:drone").requested


def test_what_needs_another_machine_to_be_built_is_an_error(found: Analyze) -> None:
    text = "genrule(name = 'g', outs = ['o'], cmd = 'c', exec_compatible_with = ['@platforms//os:%s'])"
    assert contents(found(text % "linux", platform="//platforms:phone")) == {"p/o": "c"}
    with pytest.raises(AnalysisError, match="`//p:g` cannot be built on this machine") as caught:
        found(text % "windows")
    assert "it must have `@platforms//os:windows`, and `@platforms//host:host` has" in caught.value.notes[0]


COMPILE = """
    load("//toolchains:rule.py", "compile")
    compile(name = "c")
    compile(name = "pinned", platform = "//platforms:drone")
"""


def test_the_first_registered_toolchain_that_fits_is_taken(found: Analyze) -> None:
    made = contents(found(COMPILE, "//p:c", platform="//platforms:drone"))
    assert list(made.values()) == ["arm for //platforms:drone"]
    registered = ("//toolchains:b_linux", "//toolchains:all")
    made = contents(found(COMPILE, "//p:c", platform="//platforms:drone", toolchains=registered))
    assert list(made.values()) == ["any for //platforms:drone"]


def test_a_target_may_say_its_own_platform(found: Analyze) -> None:
    made = contents(found(COMPILE, "//p:pinned"))
    assert made == {"p/pinned/out": "arm for //platforms:drone"}


def test_no_toolchain_tells_why_each_was_rejected(found: Analyze) -> None:
    with pytest.raises(
        AnalysisError, match=r"no toolchain for `//p:c` \(needs `//toolchains:compiler`\)"
    ) as caught:
        found(COMPILE, "//p:c", platform="//platforms:phone")
    notes = "\n".join(caught.value.notes)
    assert "target platform `//platforms:phone` has" in notes
    assert "rejected `//toolchains:a_arm`: its target must have `@platforms//cpu:aarch64`" in notes
    assert "rejected `//toolchains:c_other_machine`: the machine that runs it must have" in notes
    assert caught.value.location is not None


def test_toolchains_that_are_rejected_for_one_reason_are_told_together(found: Analyze) -> None:
    names = [f"t{number}" for number in range(5)]
    text = (
        COMPILE
        + f"""
    [
        toolchain(
            name = name,
            target_compatible_with = ["@platforms//os:qnx"],
            toolchain = "//toolchains:arm",
            toolchain_type = "//toolchains:compiler",
        )
        for name in {names}
    ]
    """
    )
    with pytest.raises(AnalysisError, match="no toolchain for `//p:c`") as caught:
        found(text, "//p:c", platform="//platforms:phone", toolchains=("//p:all",))
    (rejected,) = caught.value.notes[1:]
    assert rejected.startswith("rejected `//p:t0`, `//p:t1`, `//p:t2`, 2 more: its target must have")


def test_resolution_tells_how_it_chose(found: Analyze) -> None:
    told: list[str] = []
    found(COMPILE, "//p:c", platform="//platforms:drone", tell=told.append)
    (text,) = told
    assert "chosen: `//toolchains:a_arm`, which is `//toolchains:arm`" in text
    assert "fits too: `//toolchains:b_linux`" in text
    assert "rejected `//toolchains:c_other_machine`" in text


def test_it_tells_of_a_target_that_gets_none(found: Analyze) -> None:
    told: list[str] = []
    with pytest.raises(AnalysisError, match="no toolchain"):
        found(COMPILE, "//p:c", platform="//platforms:phone", tell=told.append)
    (text,) = told
    assert text.splitlines()[-1] == "  none fits"


def test_what_is_the_same_on_every_platform_names_none_when_it_cannot_be_built(found: Analyze) -> None:
    text = COMPATIBLE + "    genrule(name = 'g', tools = [':arm'], outs = ['o'], cmd = 'c')"
    with pytest.raises(AnalysisError, match=r"^error: `//p:g` cannot be built\n") as caught:
        found(text, "//p:g", platform="//platforms:drone")  # A tool is built for this machine.
    assert caught.value.notes[0].startswith("it needs `//p:arm`: it must have `@platforms//cpu:aarch64`, and")


def test_a_matrix_goes_on_where_one_platform_is_impossible(found: Analyze) -> None:
    text = (
        COMPATIBLE
        + """
    load("//toolchains:rule.py", "matrix")
    matrix(name = "m", models = [":arm"], platforms = ["//platforms:drone", "//platforms:phone"])
    """
    )
    made = contents(found(text, "//p:m"))
    assert made["@platforms/drone/p/a.txt"] == "a"
    assert "must have `@platforms//cpu:aarch64`" in made["p/m/phone-arm.txt"]


def test_platform_and_toolchain_labels_that_lead_nowhere(found: Analyze) -> None:
    with pytest.raises(LoadError, match="there is no target `//platforms:dron`") as caught:
        found(COMPILE, platform="//platforms:dron")
    assert "`:drone`" in (caught.value.hint or "")
    with pytest.raises(LoadError, match="there is no package `//nowhere`"):
        found(COMPILE, toolchains=("//nowhere:all",))
    with pytest.raises(AnalysisError, match="`//toolchains:arm` is a compiler and no platform") as told:
        found(COMPILE, platform="//toolchains:arm")
    assert told.value.notes == ()
    with pytest.raises(AnalysisError, match="`//p:data` is a dataset and no platform"):
        found(COMPILE + "    dataset(name = 'data', generator = 'BUILD.models')", platform="//p:data")
    with pytest.raises(AnalysisError, match="depends on the platform, and is used to choose one"):
        found(COMPATIBLE, platform="//p:arm")


def test_without_platforms_nothing_of_them_is_loaded(found: Analyze) -> None:
    analysis = found("genrule(name = 'g', outs = ['o'], cmd = 'c')", toolchains=("//nowhere:all",))
    assert list(contents(analysis)) == ["p/o"]


def test_a_missing_toolchain_type_tells_how_to_declare_it(found: Analyze) -> None:
    with pytest.raises(LoadError, match="there is no target `//toolchains:runtime`") as caught:
        found("device_binary(name = 'b', model = ':b')")
    assert "`device_binary` takes toolchains of this type" in caught.value.notes
    assert '`toolchain_type(name = "runtime", visibility' in (caught.value.hint or "")
