"""Operator sentences and the drone commands they mean, generated from a grammar.

`climb to 40 m, then hold for ten seconds` -> `[{"op":"climb","altitude_m":40},{"op":"hold","seconds":10}]`

Slices: `canonical` (clean English), `noisy` (typos, shorthand, no punctuation, glued units) and, in the eval
split only, `compositional`: sentences with a pair of neighbouring commands that no training sentence has.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Command = dict[str, Any]
Row = tuple[str, dict[str, Any]]

_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]
_ONES += ["twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_DIRECTIONS = ["north", "south", "east", "west", "forward", "back", "left", "right"]
_WAYPOINTS = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "home", "base"]
# Operators speak in round numbers.
_ALTITUDES = [5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120]
_DISTANCES = [5, 10, 20, 25, 30, 40, 50, 75, 100, 150, 200]
_SECONDS = [5, 10, 15, 20, 30, 40, 45, 60, 90, 120]
_JOINS = [" then ", ", then ", " and then ", ", ", " and ", "; ", ". then ", ", after that "]
_OPENINGS = ["", "", "", "", "please ", "drone, ", "ok, ", "now "]
_HELD_OUT = {
    ("climb", "photo"), ("hold", "turn"), ("turn", "orbit"), ("photo", "land"), ("goto", "climb"),
    ("orbit", "return"), ("move", "speed"), ("descend", "goto"), ("speed", "hold"), ("takeoff", "move"),
    ("turn", "descend"), ("photo", "move"),
}  # fmt: skip
"""Ordered pairs of neighbouring commands that only the compositional slice has."""


@dataclass
class _Speaker:
    """Chooses words. A noisy speaker shortens, glues units to numbers and mistypes."""

    rng: random.Random
    noisy: bool = False

    def pick(self, *forms: str) -> str:
        return self.rng.choice(forms)

    def number(self, value: int) -> str:
        """In digits, or in words when an operator might say it so."""
        spoken = value < 20 or (value < 100 and value % 10 == 0)
        return _words(value) if spoken and self.rng.random() < 0.25 else str(value)

    def measure(self, value: int, *units: str, short: str) -> str:
        """`40 metres`, `forty m`, and for a noisy speaker `40m`."""
        if self.noisy and self.rng.random() < 0.6:
            return f"{value}{short}"
        return f"{self.number(value)} {self.rng.choice((*units, short))}"

    def metres(self, value: int) -> str:
        return self.measure(value, "meters", "metres", short="m")

    def seconds(self, value: int) -> str:
        if value % 60 == 0 and self.rng.random() < 0.7:
            minutes = value // 60
            return "a minute" if minutes == 1 else f"{self.number(minutes)} {self.pick('minutes', 'min')}"
        return self.measure(value, "seconds", "secs", "sec", short="s")


def _words(value: int) -> str:
    if value < 20:
        return _ONES[value]
    tens, ones = divmod(value, 10)
    return _TENS[tens] + (f" {_ONES[ones]}" if ones else "")


def _takeoff(s: _Speaker) -> tuple[str, Command]:
    altitude = s.rng.choice(_ALTITUDES[:10])
    verb = s.pick("take off", "take off", "lift off", "launch")
    return f"{verb} to {s.metres(altitude)}", {"op": "takeoff", "altitude_m": altitude}


def _climb(s: _Speaker) -> tuple[str, Command]:
    altitude = s.rng.choice(_ALTITUDES)
    if s.noisy and s.rng.random() < 0.4:
        text = f"{s.pick('climb', 'up', 'clb')} {s.metres(altitude)}"
    else:
        text = f"{s.pick('climb', 'go up', 'ascend', 'rise')} to {s.metres(altitude)}"
    return text, {"op": "climb", "altitude_m": altitude}


def _descend(s: _Speaker) -> tuple[str, Command]:
    altitude = s.rng.choice(_ALTITUDES[:10])
    if s.noisy and s.rng.random() < 0.4:
        text = f"{s.pick('descend', 'down', 'desc')} {s.metres(altitude)}"
    else:
        text = f"{s.pick('descend', 'go down', 'drop', 'come down')} to {s.metres(altitude)}"
    return text, {"op": "descend", "altitude_m": altitude}


def _hold(s: _Speaker) -> tuple[str, Command]:
    seconds = s.rng.choice(_SECONDS)
    if s.noisy and s.rng.random() < 0.4:
        text = f"{s.pick('hold', 'wait', 'hov')} {s.seconds(seconds)}"
    else:
        text = f"{s.pick('hold', 'hover', 'wait', 'hold position')} for {s.seconds(seconds)}"
    return text, {"op": "hold", "seconds": seconds}


def _move(s: _Speaker) -> tuple[str, Command]:
    direction, distance = s.rng.choice(_DIRECTIONS), s.rng.choice(_DISTANCES)
    verb, length = s.pick("fly", "move", "go"), s.metres(distance)
    if s.noisy and s.rng.random() < 0.4:
        text = f"{direction} {length}"
    else:
        text = s.pick(f"{verb} {direction} {length}", f"{verb} {length} {direction}")
    return text, {"op": "move", "direction": direction, "distance_m": distance}


def _turn(s: _Speaker) -> tuple[str, Command]:
    direction = s.pick("left", "right")
    degrees = s.rng.choice([30, 45, 60, 90, 120, 180])
    angle = s.measure(degrees, "degrees", short="deg")
    text = s.pick(f"turn {direction} {angle}", f"turn {angle} {direction}", f"rotate {angle} {direction}")
    return text, {"op": "turn", "direction": direction, "degrees": degrees}


def _speed(s: _Speaker) -> tuple[str, Command]:
    value = s.rng.randint(1, 10)
    rate = s.measure(value, "meters per second", "metres per second", short="m/s")
    return f"{s.pick('set speed to', 'set speed', 'speed')} {rate}", {"op": "speed", "speed_mps": value}


def _goto(s: _Speaker) -> tuple[str, Command]:
    waypoint = s.rng.choice(_WAYPOINTS)
    place = waypoint if waypoint in ("home", "base") or s.noisy else s.pick(waypoint, f"waypoint {waypoint}")
    return f"{s.pick('go to', 'fly to', 'proceed to')} {place}", {"op": "goto", "waypoint": waypoint}


def _photo(s: _Speaker) -> tuple[str, Command]:
    count = s.rng.randint(1, 6)
    if count == 1:
        text = s.pick("take a photo", "take a picture", "snap a photo", "take one photo")
    else:
        short = ("photos", "pictures", "pics") if s.noisy else ("photos", "pictures")
        text = f"{s.pick('take', 'snap', 'shoot')} {s.number(count)} {s.pick(*short)}"
    return text, {"op": "photo", "count": count}


def _orbit(s: _Speaker) -> tuple[str, Command]:
    radius, turns = s.rng.choice(_ALTITUDES[:8]), s.rng.randint(1, 4)
    times = s.pick("once", "one time") if turns == 1 else s.pick(f"{s.number(turns)} times")
    text = f"{s.pick('orbit', 'circle')} {times} at {s.metres(radius)}"
    return text, {"op": "orbit", "radius_m": radius, "turns": turns}


def _land(s: _Speaker) -> tuple[str, Command]:
    return s.pick("land", "land now", "land here", "touch down"), {"op": "land"}


def _return(s: _Speaker) -> tuple[str, Command]:
    if s.noisy:
        return s.pick("rtl", "return", "rth", "come back"), {"op": "return"}
    return s.pick("return to launch", "come back", "return", "return home"), {"op": "return"}


_COMMANDS: dict[str, Callable[[_Speaker], tuple[str, Command]]] = {
    "takeoff": _takeoff, "climb": _climb, "descend": _descend, "hold": _hold, "move": _move, "turn": _turn,
    "speed": _speed, "goto": _goto, "photo": _photo, "orbit": _orbit, "land": _land, "return": _return,
}  # fmt: skip


def _operations(rng: random.Random) -> list[str]:
    """One to three different commands; takeoff only first, land and return only last."""
    count = rng.choices((1, 2, 3), (30, 45, 25))[0]
    middle = [name for name in _COMMANDS if name not in ("takeoff", "land", "return")]
    names = rng.sample(middle, count)
    if rng.random() < 0.12:
        names[0] = "takeoff"
    if count > 1 and rng.random() < 0.2:
        names[-1] = rng.choice(("land", "return"))
    elif count == 1 and rng.random() < 0.1:
        names = [rng.choice(("land", "return", "takeoff"))]
    return names


def _is_held_out(names: list[str]) -> bool:
    return any(pair in _HELD_OUT for pair in pairwise(names))


def _mistype(text: str, rng: random.Random) -> str:
    """One slip in a word of four letters or more: a letter lost, doubled or swapped with the next."""
    words = text.split(" ")
    long_words = [i for i, word in enumerate(words) if len(word) > 3 and word.isalpha()]
    if not long_words:
        return text
    index = rng.choice(long_words)
    word, at = words[index], rng.randrange(1, len(words[index]) - 1)
    slips = (
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
    )
    words[index] = rng.choice(slips)
    return " ".join(words)


def _sentence(names: list[str], rng: random.Random, *, noisy: bool) -> tuple[str, str]:
    speaker = _Speaker(rng, noisy)
    parts, commands = zip(*(_COMMANDS[name](speaker) for name in names), strict=True)
    text = ("" if noisy else rng.choice(_OPENINGS)) + parts[0]
    for part in parts[1:]:
        text += rng.choice((" ", ", ", " then ", " & ", " ") if noisy else _JOINS) + part
    if noisy:
        for _ in range(rng.choice((0, 1, 1, 2))):
            text = _mistype(text, rng)
        text = rng.choice((text, text, text.upper(), text.capitalize()))
    elif rng.random() < 0.3:
        text = text[0].upper() + text[1:] + "."
    return text, json.dumps(commands, separators=(",", ":"))


def _normal(text: str) -> str:
    kept = "".join(" " if c in string.punctuation else c for c in text.casefold())
    return " ".join(kept.split())


def generate(args: dict[str, Any], seed: int) -> Iterator[Row]:
    """Yield (split, row). args: how many rows `train`, `calibration` and `eval` have; half of eval is
    canonical, a quarter noisy, a quarter compositional. No prompt is in two splits, however it is written.
    """
    rng = random.Random(seed)  # noqa: S311 - data, not secrets
    seen: set[str] = set()

    def rows(
        split: str, slice_name: str, count: int, *, unique: bool
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        made = 0
        while made < count:
            names = _operations(rng)
            if _is_held_out(names) != (slice_name == "compositional"):
                continue
            prompt, completion = _sentence(names, rng, noisy=slice_name == "noisy")
            normal = _normal(prompt)
            if normal in seen:
                continue
            if unique:
                seen.add(normal)
            made += 1
            yield split, {"prompt": prompt, "completion": completion, "slice": slice_name}

    total = args["eval"]
    quarter = total // 4
    yield from rows("eval", "canonical", total - 2 * quarter, unique=True)
    yield from rows("eval", "noisy", quarter, unique=True)
    yield from rows("eval", "compositional", quarter, unique=True)
    for split in ("calibration", "train"):
        noisy = [rng.random() < 0.3 for _ in range(args[split])]
        for is_noisy in noisy:
            yield from rows(split, "noisy" if is_noisy else "canonical", 1, unique=split == "calibration")
