import json

import pytest

from prm_kit.run_directory import RunDirectory
from rl.phases import Phases, Timed


class Engine:
    name = "engine"

    def generate(self, prefixes, n):
        return [prefixes] * n


def test_every_phase_of_an_update_is_a_line_and_the_next_update_starts_at_0(tmp_path):
    phases, directory = Phases(), RunDirectory(tmp_path)
    for _ in range(2):
        with phases.of("generation"):
            sum(range(100_000))
    with pytest.raises(ValueError, match="x"), phases.of("learning"):
        raise ValueError("x")
    phases.tell(directory, 3)
    phases.tell(directory, 4)
    lines = [json.loads(line) for line in (tmp_path / "timings.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["update"]) for line in lines] == [("generation", 3), ("learning", 3)]
    assert all(line["wall_seconds"] >= 0 and line["cpu_seconds"] >= 0 for line in lines)


def test_a_timed_object_answers_as_the_one_it_stands_for():
    phases = Phases()
    timed = Timed(Engine(), "generate", "generation", phases)
    assert timed.name == "engine"
    assert phases.seconds == {}
    assert timed.generate([1], n=2) == [[1], [1]]
    assert set(phases.seconds) == {"generation"}
    with pytest.raises(AttributeError):
        timed.missing  # noqa: B018
