"""Procedural problems of the package reasoning-gym (the extra `tasks`)."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from itertools import count
from typing import Any

from prm_kit.answer_text import extract_final_answer
from prm_kit.errors import UsageError, unknown_name
from prm_kit.records import Problem
from prm_kit.tasks.task import Split, check_split, split_of

_EVALUATES = re.compile(r"\b(?:eval|exec|parse_expr|sympify|parse_latex)\s*\(")
_HARMLESS = re.compile(r"(?!.*\*\s*\*)[0-9+\-*/() .]{1,200}|[0-9\-, \n\[\]]+", re.DOTALL)
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_MOST_CHARACTERS = 4_000
_CHUNK = 256
_BARREN = 20  # chunks without a new problem, after which a data set counts as exhausted


class GymTask:
    """One data set of reasoning-gym; a problem counts as solved when the data set's own score is full.

    The checkers of some data sets evaluate what they are given as code. Answers come from a model, so these checkers
    see only answers that are plain arithmetic or a list of numbers, in which nothing can be named or called.

    Args:
        dataset: Its name there, such as "basic_arithmetic".
        options: Options of the data set, such as how many digits.

    Raises:
        UsageError: The package is missing, or the data set is unknown.
    """

    def __init__(self, dataset: str, **options: Any) -> None:
        if importlib.util.find_spec("reasoning_gym") is None:
            raise UsageError("reasoning-gym problems need the package reasoning-gym: pip install 'prm-kit[tasks]'")
        import reasoning_gym
        from reasoning_gym.factory import DATASETS

        if dataset not in DATASETS:
            raise unknown_name("reasoning-gym data set", dataset, DATASETS)
        self.dataset = dataset
        self.options = options
        self._create = reasoning_gym.create_dataset
        checker = DATASETS[dataset][0]
        self._evaluates = bool(_EVALUATES.search(inspect.getsource(sys.modules[checker.__module__])))
        self._opened: dict[tuple[int, int], Any] = {}

    @property
    def name(self) -> str:
        """The data set's name."""
        return f"reasoning-gym:{self.dataset}"

    def problems(self, split: Split, n: int | None, seed: int) -> list[Problem]:
        """Draw problems (see `Task.problems`).

        Raises:
            UsageError: Unknown split, no `n`, or the data set does not make that many different ones.
        """
        check_split(split)
        if n is None:
            raise UsageError(f"{self.name} makes problems without end: say how many")
        found: dict[str, Problem] = {}
        barren = 0
        for start in count(0, _CHUNK):
            before = len(found)
            for index in range(start, start + _CHUNK):
                if len(found) == n:
                    return list(found.values())
                entry = self._entry(seed, index)
                text = str(entry["question"])
                if split_of(text) == split and text not in found:
                    answer = None if entry["answer"] is None else str(entry["answer"])
                    found[text] = Problem(text, answer, {"source": self.name, "seed": seed, "index": index})
            barren = barren + 1 if len(found) == before else 0
            if barren == _BARREN:
                break
        raise UsageError(f"{self.name}: only {len(found)} different {split} problems were found, not {n}")

    def verify(self, problem: Problem, completion: str) -> bool | None:
        """Whether the data set gives the stated final answer its full score (see `Task.verify`).

        The answer stands in the last <answer> tags, as this package has it, or else where final answers stand. None
        where the data set's checker fails, or must not see the answer: too long, or code in an answer it evaluates.
        """
        tagged = _TAGGED.findall(completion)
        stated = tagged[-1].strip() if tagged else extract_final_answer(completion)
        if stated is None:
            return False
        if len(stated) > _MOST_CHARACTERS or (self._evaluates and not _HARMLESS.fullmatch(stated)):
            return None
        seed, index = int(problem.meta["seed"]), int(problem.meta["index"])
        try:
            score = self._data(seed, index).score_answer(stated, self._entry(seed, index))
        except Exception:  # a checker that chokes on an answer says nothing about it
            return None
        return bool(score >= 1.0)

    def _data(self, seed: int, index: int) -> Any:
        """The data set, of a size that holds `index`: an entry depends on seed and index alone."""
        size = (index // _CHUNK + 1) * _CHUNK
        if (seed, size) not in self._opened:
            self._opened = {(seed, size): self._create(self.dataset, seed=seed, size=size, **self.options)}
        return self._opened[seed, size]

    def _entry(self, seed: int, index: int) -> dict[str, Any]:
        entry: dict[str, Any] = self._data(seed, index)[index]
        return entry
