import json
from pathlib import Path
from typing import Any

import pytest

from modelbuild.toolkit.request import Request, ToolError, load_tool

FAMILY = Path(__file__).resolve().parents[3] / "modelbuild/rules/dataset"
GENERATOR = """
def generate(args, seed):
    for n in range(args["rows"]):
        yield "train", {"prompt": f"say {n + seed}", "completion": str(n), "slice": "odd" if n % 2 else "even"}
    yield "eval", {"prompt": "say nothing", "completion": "0", "slice": "even"}
"""


def make(tmp_path: Path, source: str = GENERATOR, *, out: str = "dataset", seed: int = 3) -> Path:
    script = tmp_path / "generator.py"
    script.write_text(source)
    params = {
        "args": {"rows": 3}, "seed": seed, "task": "text_generation", "splits": ["train", "eval"],
    }  # fmt: skip
    request = Request(params, {"generator.py": script}, {"dataset": tmp_path / out})
    load_tool(FAMILY / "tool.py").main(request)
    return tmp_path / out


def validate(dataset: Path, completion_format: str = "text", task: str = "text_generation") -> dict[str, Any]:
    report = dataset.parent / "report.json"
    params = {"task": task, "completion_format": completion_format}
    load_tool(FAMILY / "validate.py").main(Request(params, {"dataset": dataset}, {"report": report}))
    made: dict[str, Any] = json.loads(report.read_text())
    return made


def written(tmp_path: Path, **splits: list[dict[str, Any]]) -> Path:
    dataset = tmp_path / "written"
    dataset.mkdir()
    for split, rows in splits.items():
        (dataset / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return dataset


def row(prompt: str, completion: str = "1") -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, "slice": "all"}


def test_rows_go_to_their_split_and_are_counted(tmp_path: Path) -> None:
    dataset = make(tmp_path)
    lines = (dataset / "train.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == {"prompt": "say 4", "completion": "1", "slice": "odd"}
    summary = json.loads((dataset / "dataset.json").read_text())
    assert summary["task"] == "text_generation"
    assert summary["splits"]["train"] == {"rows": 3, "slices": {"even": 2, "odd": 1}}
    assert sorted(p.name for p in dataset.iterdir()) == ["dataset.json", "eval.jsonl", "train.jsonl"]


def test_a_script_that_forgets_to_seed_is_still_repeatable(tmp_path: Path) -> None:
    source = "import random\n" + GENERATOR.replace("str(n)", "str(random.random())")
    first, second = make(tmp_path, source, out="a"), make(tmp_path, source, out="b")
    assert (first / "train.jsonl").read_bytes() == (second / "train.jsonl").read_bytes()
    assert (make(tmp_path, source, out="c", seed=4) / "train.jsonl").read_bytes() != (
        first / "train.jsonl"
    ).read_bytes()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "defines no `generate(args, seed)`"),
        ("import not_there_at_all", "cannot be imported: ModuleNotFoundError"),
        ("def generate(args, seed):\n    yield 'test', {}", "yields split `test`"),
        ("def generate(args, seed):\n    yield 'train', {}", "no row of split `eval`"),
        ("def generate(args, seed):\n    yield 'train', {'a': 1 / 0}", "line 2, in generate"),
    ],
)
def test_a_wrong_script_is_told_what_is_wrong(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(ToolError) as caught:
        make(tmp_path, source)
    assert message in caught.value.message


def test_a_sound_dataset_is_reported_sound(tmp_path: Path) -> None:
    assert validate(make(tmp_path))["rows"] == {"eval": 1, "train": 3}


@pytest.mark.parametrize("twin", ["climb to 40 m", "Climb to 40 m.", "climb  to, 40 m!"])
def test_an_eval_prompt_found_in_train_fails_however_it_is_written(tmp_path: Path, twin: str) -> None:
    dataset = written(tmp_path, train=[row("hold"), row(twin)], eval=[row("climb to 40 m")])
    with pytest.raises(ToolError) as caught:
        validate(dataset)
    assert "train.jsonl:2 is also eval.jsonl:1" in caught.value.message


def test_an_eval_prompt_found_in_calibration_fails(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"calibration.jsonl:1 is also"):
        validate(written(tmp_path, calibration=[row("land")], eval=[row("land")], train=[row("go")]))


def test_another_number_is_another_prompt(tmp_path: Path) -> None:
    assert validate(written(tmp_path, train=[row("climb to 4 m")], eval=[row("climb to 40 m")]))["sound"]


def test_a_prompt_twice_in_train_is_fine_but_not_in_eval(tmp_path: Path) -> None:
    dataset = written(tmp_path, train=[row("go"), row("go")], eval=[row("land"), row("land")])
    with pytest.raises(ToolError) as caught:
        validate(dataset)
    assert "1 unsound rows" in caught.value.message
    assert "eval.jsonl:2 repeats eval.jsonl:1: `land`" in caught.value.message


def test_completions_must_parse_when_they_are_said_to_be_json(tmp_path: Path) -> None:
    dataset = written(tmp_path, train=[row("go", '{"op":')], eval=[row("land", "[]")])
    assert validate(dataset)["sound"]
    with pytest.raises(ToolError, match=r"train.jsonl:1: completion is no JSON"):
        validate(dataset, "json")


@pytest.mark.parametrize("wrong", [{}, {"prompt": "x"}, {"prompt": "", "completion": "y"}, [1]])
def test_a_malformed_row_fails(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(ToolError, match=r"train.jsonl:1"):
        validate(written(tmp_path, train=[wrong], eval=[row("land")]))


def test_only_the_first_offenders_are_shown(tmp_path: Path) -> None:
    rows = [row(f"go {n}") for n in range(9)]
    with pytest.raises(ToolError) as caught:
        validate(written(tmp_path, train=rows, eval=rows))
    assert "9 unsound rows" in caught.value.message
    assert caught.value.message.count("is also") == 5
    assert "and 4 more" in caught.value.message
