import pytest
import torch

from prm_kit.backbone import load_language_model, load_tokenizer
from prm_kit.encode import TooLongError
from prm_kit.engines.engine import Limits, Rollout
from prm_kit.engines.transformers_engine import TransformersEngine
from prm_kit.errors import UsageError
from prm_kit.generative import GenerativeScorer, JudgeTemplate, TransformersNextToken, VerdictReader
from prm_kit.records import Solution

TEMPLATE = JudgeTemplate(ask="? ", lead=" \n ", answer=" = ", close=" again ", verdict=r"so", yes=("+",), no=("-",))
LIMITS = Limits(max_new_tokens=6, stop_ids=(1,))
SOLUTIONS = [
    Solution.from_steps("3 + 4", ["7", "so 7"], " "),
    Solution.from_steps("<|prm_step|> 5", ["5 + 1"], " "),
]


class Script:
    """An engine that writes what it is told to, and remembers what it was asked."""

    def __init__(self, tokenizer, *turns: str) -> None:
        self.tokenizer, self.turns, self.asked = tokenizer, list(turns), []

    def generate(self, prefixes, n, limits):
        found = []
        for prefix in prefixes:
            self.asked.append((self.tokenizer.convert_ids_to_tokens(list(prefix)), limits.seed))
            text = self.turns.pop(0)
            ids = self.tokenizer.encode(text.removesuffix("|"), add_special_tokens=False)
            stopped = text.endswith("|")
            found.append([Rollout((*ids, 1) if stopped else tuple(ids), (), "stop" if stopped else "length")])
        return found


@pytest.fixture(scope="module")
def model(language_model):
    return load_language_model(language_model, torch.float32)


@pytest.fixture(scope="module")
def tokenizer(language_model):
    return load_tokenizer(language_model)


def judge(engine, model, tokenizer, template=TEMPLATE, **changes) -> GenerativeScorer:
    limits = changes.pop("limits", LIMITS)
    return GenerativeScorer(engine, TransformersNextToken(model), tokenizer, template, limits=limits, **changes)


def ratio(model, tokenizer, words: list[str]) -> float:
    """p("+") / (p("+") + p("-")) after these tokens, from the whole softmax."""
    with torch.inference_mode():
        logits = model(torch.tensor([tokenizer.convert_tokens_to_ids(words)])).logits[0, -1]
    p = logits.softmax(-1)
    yes, no = (p[tokenizer.convert_tokens_to_ids(word)].item() for word in "+-")
    return yes / (yes + no)


def test_a_verdict_is_read_where_the_judge_decided_whatever_it_chose(model, tokenizer):
    engine = Script(tokenizer, "9 so + 3|", "1 so - 2|")
    [score] = judge(engine, model, tokenizer).score(SOLUTIONS[:1])
    (first, _), (second, _) = engine.asked
    expected = [ratio(model, tokenizer, [*first, "9", "so"]), ratio(model, tokenizer, [*second, "1", "so"])]
    assert [p[2] for p in score.probabilities] == pytest.approx(expected, abs=1e-6)
    assert all(p[1] == 0.0 and p[0] == 1 - p[2] for p in score.probabilities)


def test_the_conversation_goes_on_with_what_the_judge_wrote(model, tokenizer):
    engine = Script(tokenizer, "9 so + 3|", "1 so - 2|")
    judge(engine, model, tokenizer).score(SOLUTIONS[:1])
    (first, _), (second, _) = engine.asked
    assert first == ["?", "3", "+", "4", "\n", "7", "="]
    assert second == [*first, "9", "so", "+", "3", "again", "?", "so", "7", "="]


def test_what_cannot_be_read_has_no_score_and_is_never_right(model, tokenizer):
    # no verdict; the word without the pattern; the pattern without a word
    for turns in (["1 2 3", "4"], ["+|", "- +|"], ["so 3 +|", "so"]):
        [score] = judge(Script(tokenizer, *turns), model, tokenizer).score(SOLUTIONS[:1])
        assert score.probabilities == (None, None)
        assert score.values == (None, None)


def test_the_last_verdict_of_a_step_counts(model, tokenizer):
    engine = Script(tokenizer, "so + 3 so -|", "so")
    [score] = judge(engine, model, tokenizer).score(SOLUTIONS[:1])
    expected = ratio(model, tokenizer, [*engine.asked[0][0], "so", "+", "3", "so"])
    assert score.probabilities[0][2] == pytest.approx(expected, abs=1e-6)


def test_several_conversations_are_independent_and_their_mean_leaves_out_what_said_nothing(model, tokenizer):
    engine = Script(tokenizer, "so +|", "1 so -|", "3")
    [score] = judge(engine, model, tokenizer, conversations=3).score(SOLUTIONS[1:])
    (first, one), (second, two), (_, three) = engine.asked
    assert first == second
    assert (one, two, three) == (0, 1, 2)
    expected = [ratio(model, tokenizer, [*first, "so"]), ratio(model, tokenizer, [*first, "1", "so"])]
    assert score.probabilities[0][2] == pytest.approx(sum(expected) / 2, abs=1e-6)


def test_a_solutions_text_never_becomes_a_special_token(model, tokenizer):
    engine = Script(tokenizer, "so +|")
    judge(engine, model, tokenizer).score(SOLUTIONS[1:])
    assert "<|prm_step|>" not in engine.asked[0][0]


def test_scores_are_the_same_alone_and_side_by_side_with_a_real_engine(model, tokenizer):
    loose = TEMPLATE.model_copy(update={"verdict": ""})  # any "+" or "-" that this random model writes
    scorer = judge(TransformersEngine(model), model, tokenizer, loose, limits=Limits(30, (1,), 2.0, 5))
    together = scorer.score(SOLUTIONS)
    assert any(p is not None for score in together for p in score.probabilities)
    for solution, score in zip(SOLUTIONS, together, strict=True):
        [alone] = scorer.score([solution])
        for one, other in zip(alone.probabilities, score.probabilities, strict=True):
            assert one == (other if other is None else pytest.approx(other, abs=1e-6))
    assert scorer.score([]) == []


def test_next_token_log_probabilities_are_the_models_own_in_any_batch(model, tokenizer):
    prefixes = [[3], [4, 5, 6, 7], [8, 9]]
    found = TransformersNextToken(model, token_budget=8).log_probabilities(prefixes, [5, 2])
    for prefix, row in zip(prefixes, found, strict=True):
        with torch.inference_mode():
            expected = model(torch.tensor([prefix])).logits[0, -1].log_softmax(-1)[[5, 2]]
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=0)


def test_words_that_are_several_tokens_are_left_out_and_none_at_all_is_refused(tokenizer):
    reader = VerdictReader.of(tokenizer, "so", ("+", "+ +", "unheard"), ("-",))
    assert (len(reader.yes), len(reader.no)) == (1, 1)
    with pytest.raises(UsageError, match=r"none of 'unheard' is one token"):
        VerdictReader.of(tokenizer, "so", ("+",), ("unheard",))
    with pytest.raises(UsageError, match=r"share a token"):
        VerdictReader.of(tokenizer, "so", ("+",), ("+", "-"))


def test_a_conversation_that_does_not_fit_is_refused_by_name(model, tokenizer):
    scorer = judge(Script(tokenizer, "so +|"), model, tokenizer, max_tokens=8)
    with pytest.raises(TooLongError, match=rf"{SOLUTIONS[0].id}, step 0"):
        scorer.score(SOLUTIONS[:1])
    with pytest.raises(UsageError, match=r"0 conversations"):
        judge(Script(tokenizer), model, tokenizer, conversations=0)
