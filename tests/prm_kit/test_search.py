from types import SimpleNamespace
from typing import ClassVar

import pytest

from prm_kit.engines.engine import Rollout
from prm_kit.errors import UsageError
from prm_kit.records import Problem
from prm_kit.score import StepScores
from prm_kit.search import Search, endings
from prm_kit.search_settings import SearchSettings
from prm_kit.settings import validated

END = 0
PROBLEMS = [Problem("3"), Problem("5"), Problem("8")]


class Letters:
    """A tokenizer whose tokens are characters."""

    added_tokens_decoder: ClassVar = {END: ""}

    def __len__(self):
        return 128

    def decode(self, ids):
        return "".join(map(chr, ids))


class Characters:
    """A policy over that tokenizer; token 0 ends a completion."""

    stop_ids = (END,)
    tokenizer = Letters()
    model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=200))

    def prompt_ids(self, problems):
        return [[ord(c) for c in f"{problem}>"] for problem in problems]

    def text(self, rollout):
        return self.tokenizer.decode(rollout.ids[:-1] if rollout.finish == "stop" else rollout.ids)


def digit(text, sample):
    """The step that sample number `sample` writes after `text`."""
    return (7 * sum(map(ord, text)) + 3 * sample + len(text)) % 10


class Digits:
    """Writes lines of one digit each; after `depth` of them "A" and the end."""

    def __init__(self, depth=3, endless=False):
        self.depth, self.endless, self.calls = depth, endless, []

    def generate(self, prefixes, n, limits):
        self.calls.append((len(prefixes), n))
        return [[self._write("".join(map(chr, prefix)), sample, limits) for sample in range(n)] for prefix in prefixes]

    def _write(self, text, sample, limits):
        ids = []
        while len(ids) < limits.max_new_tokens:
            here = text + "".join(map(chr, ids))
            said = here.partition(">")[2]
            over = said.count("\n") >= self.depth and not self.endless
            more = [ord("A"), END] if over else [ord(str(digit(here, sample))), ord("\n")]
            for token in more[: limits.max_new_tokens - len(ids)]:
                ids.append(token)
                if token in limits.stop_ids:
                    return Rollout(tuple(ids), (), "stop")
        return Rollout(tuple(ids), (), "length")


class LikesLargeDigits:
    """p(+1) of a step is its digit over ten; "A" is sure."""

    name = "large"

    def __init__(self):
        self.asked = []

    def score(self, solutions):
        self.asked.append(len(solutions))
        return [StepScores(tuple((1 - chance(s), 0.0, chance(s)) for s in one.steps)) for one in solutions]


def chance(step):
    return 1.0 if step.startswith("A") else int(step[0]) / 10


def search(engine=None, scorer=None, **settings):
    asked = {"aggregation": "product", "max_new_tokens": 50, **settings}
    return Search(Characters(), engine or Digits(), scorer or LikesLargeDigits(), SearchSettings(**asked))


def product(text):
    found = 1.0
    for step in text.split("\n"):
        found *= chance(step) if step else 1.0
    return found


def grow(text, n):
    """The distinct next lines after `text`, in the order sampled."""
    return list(dict.fromkeys(f"{text}{digit(text, sample)}\n" for sample in range(n)))


def beam_by_hand(problem, n, width, depth=3):
    """One problem at a time, no batches: the slow reference."""
    head = f"{problem}>"
    kept = grow(head, n)
    for _ in range(depth - 1):
        kept = sorted(kept, key=lambda text: -product(text[len(head) :]))[: n // width]
        kept = list(dict.fromkeys(line for text in kept for line in grow(text, width)))
    kept = sorted(kept, key=lambda text: -product(text[len(head) :]))[: n // width]
    ended = [f"{text[len(head) :]}A" for text in kept for _ in range(width)]
    return sorted(ended, key=lambda text: -product(text))


def dvts_by_hand(problem, n, width, depth=3):
    head, ended = f"{problem}>", []
    trees = n // width
    dealt = [[] for _ in range(trees)]
    for place, text in enumerate(grow(head, n)):
        dealt[place % trees].append(text)
    for lines in dealt:
        kept = lines
        for _ in range(depth - 1):
            if kept:
                best = max(kept, key=lambda text: product(text[len(head) :]))
                kept = grow(best, width)
        if kept:
            best = max(kept, key=lambda text: product(text[len(head) :]))
            ended += [f"{best[len(head) :]}A"] * width
    return sorted(ended, key=lambda text: -product(text))


def texts(found):
    return [one.solution.completion for one in found.candidates]


@pytest.mark.parametrize(("n", "width"), [(4, 2), (6, 3), (9, 3), (8, 8), (2, 1)])
def test_beam_search_in_one_batch_finds_what_a_slow_one_finds_problem_by_problem(n, width):
    for problem, found in zip(PROBLEMS, search(method="beam", n=n, width=width).run(PROBLEMS), strict=True):
        assert texts(found) == beam_by_hand(problem.text, n, width)


@pytest.mark.parametrize(("n", "width"), [(4, 2), (6, 3), (9, 3), (8, 8)])
def test_the_trees_of_dvts_do_not_compete(n, width):
    for problem, found in zip(PROBLEMS, search(method="dvts", n=n, width=width).run(PROBLEMS), strict=True):
        assert sorted(texts(found)) == sorted(dvts_by_hand(problem.text, n, width))


def test_best_of_n_samples_whole_solutions_and_puts_the_likeliest_first():
    searching = search(method="best-of-n", n=5)
    found = searching.run(PROBLEMS)
    for item in found:
        assert [one.score for one in item.candidates] == pytest.approx(
            sorted((product(text) for text in texts(item)), reverse=True)
        )
        assert {one.ended for one in item.candidates} == {"stop"}
    assert searching.engine.calls == [(3, 5)]
    assert searching.spent.sampled_tokens == 3 * 5 * 8  # three digits with line ends, "A", the end


def test_every_round_asks_engine_and_scorer_once_for_all_problems():
    searching = search(method="beam", n=4, width=2)
    searching.run(PROBLEMS)
    # the bare problems, then two lines more, then "A": never one problem at a time
    assert [n for _, n in searching.engine.calls] == [4, 2, 2, 2]
    assert len(searching.scorer.asked) == 4


def test_a_problem_gives_the_same_alone_and_beside_others():
    together = search(method="dvts", n=6, width=2).run(PROBLEMS)
    alone = [search(method="dvts", n=6, width=2).run([problem])[0] for problem in PROBLEMS]
    assert [texts(item) for item in together] == [texts(item) for item in alone]


def test_a_line_end_inside_a_formula_or_half_of_a_blank_line_ends_no_step():
    class Formula:
        def generate(self, prefixes, n, limits):
            whole = "a\n$$\nb\n$$\n\nc\n\nA\0"
            groups = []
            for prefix in prefixes:
                said = "".join(map(chr, prefix)).partition(">")[2]
                ids = []
                for token in map(ord, whole[len(said) :]):
                    ids.append(token)
                    if token in limits.stop_ids:
                        break
                groups.append([Rollout(tuple(ids), (), "stop")] * n)
            return groups

    class Steps(LikesLargeDigits):
        def score(self, solutions):
            self.asked.append([list(one.steps) for one in solutions])
            return [StepScores(((0.0, 0.0, 1.0),) * len(one.spans)) for one in solutions]

    searching = search(Formula(), Steps(), method="beam", n=1, width=1, step="blank_line")
    found = searching.run(PROBLEMS[:1])[0]
    first, second, third = "a\n$$\nb\n$$", "c", "A"
    assert searching.scorer.asked == [[[first]], [[first, second]], [[first, second, third]]]
    assert texts(found) == ["a\n$$\nb\n$$\n\nc\n\nA"]


def test_samples_that_begin_a_step_alike_go_on_each_in_its_own_way():
    class TwoLines:
        """The first line of a step is always the same; the second hangs on the random numbers."""

        def generate(self, prefixes, n, limits):
            return [[self._write("".join(map(chr, ids)).partition(">")[2], limits)] * n for ids in prefixes]

        def _write(self, said, limits):
            over = "A\0" if said.endswith("\n\n") else "\n" if said.count("\n") == 2 else ""
            text = over or ("1\n" if not said else f"{limits.seed % 7 + 2}\n")
            return Rollout(tuple(map(ord, text)), (), "stop")

    searching = search(TwoLines(), method="beam", n=4, width=1, step="blank_line")
    found = searching.run(PROBLEMS[:1])[0]
    assert len(set(texts(found))) == 4
    assert searching.spent.merged == 0


def test_a_line_end_on_the_last_token_leaves_no_room_for_another_step():
    found = search(Digits(endless=True), method="beam", n=2, width=1, max_new_tokens=4).run(PROBLEMS)
    assert endings(found) == {"length": 6}
    assert {len(one.ids) for item in found for one in item.candidates} == {4}


def test_what_a_limit_ends_is_kept_marked_and_ranks_below_what_ended_by_itself():
    by_tokens = search(Digits(endless=True), method="beam", n=2, width=1, max_new_tokens=7).run(PROBLEMS)
    assert endings(by_tokens) == {"length": 6}
    assert all(len(one.ids) == 7 for item in by_tokens for one in item.candidates)
    by_steps = search(Digits(endless=True), method="beam", n=4, width=2, max_steps=2).run(PROBLEMS)
    assert {len(one.solution.spans) for item in by_steps for one in item.candidates} == {2}
    assert set(endings(by_steps)) == {"length"}
    mixed = search(Digits(depth=1), method="best-of-n", n=3, max_new_tokens=50).run(PROBLEMS[:1])[0].candidates[0]
    assert mixed.rank > by_tokens[0].candidates[0].rank


def test_a_solution_without_steps_is_kept_without_a_score():
    class Silent:
        def generate(self, prefixes, n, limits):
            return [[Rollout((END,), (), "stop")] * n for _ in prefixes]

    for method in ("best-of-n", "beam"):
        found = search(Silent(), method=method, n=2, width=1).run(PROBLEMS[:1])[0]
        assert [(one.solution.completion, one.score, one.ended) for one in found.candidates] == [("", None, "stop")] * 2


def test_what_cannot_be_searched_is_refused():
    with pytest.raises(UsageError, match="width must divide n"):
        validated(SearchSettings, {"n": 10, "width": 4}, "test")
    with pytest.raises(UsageError, match="leave no room"):
        search(max_new_tokens=199).run(PROBLEMS)
