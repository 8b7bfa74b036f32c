from collections.abc import Callable

import pytest
import torch

from prm_kit.encode import TooLongError
from prm_kit.errors import InputError, UsageError
from prm_kit.model import Prm
from prm_kit.prm_scorer import PrmScorer
from prm_kit.readout import READOUTS
from prm_kit.records import Solution


@pytest.fixture(scope="module")
def make_prm(backbone) -> Callable[..., Prm]:
    """Makes PRMs with large random heads, so that scores differ."""

    def make(*, readout="classes", members=1, **changes: object) -> Prm:
        prm = Prm.from_backbone(backbone, readout=readout, members=members)
        with torch.no_grad():
            prm.head.weight.normal_(generator=torch.Generator().manual_seed(1))
        prm.card = prm.card.model_copy(update=changes)
        return prm

    return make


@pytest.fixture(scope="module")
def prm(make_prm) -> Prm:
    return make_prm()


def some_solutions() -> list[Solution]:
    trunk = ["1 + 2 = 3", "so 3 + 4 = 7", "so 7"]
    other = ["2 + 2 = 4", "so 4"]
    return [
        Solution.from_steps("1 + 2 + 4", trunk, " "),
        Solution.from_steps("5 + 1", other, " "),
        Solution.from_steps("1 + 2 + 4", [*trunk[:2], "so 8 8"], " "),
        Solution("9", "nothing", ()),
        Solution.from_steps("1 + 2 + 4", trunk[:1], " "),
        Solution.from_steps("1 + 2 + 4", trunk, " "),
    ]


def card_loop(prm: Prm, solution: Solution) -> list[list[float]]:
    """One forward of the plain Hugging Face model, as model cards show it."""
    (one,) = prm.encoder.encode([solution])
    with torch.no_grad():
        logits_TK = prm.model(input_ids=torch.tensor([one.ids])).logits[0]
    return (logits_TK[one.read_positions] / prm.card.temperature).softmax(-1).tolist()


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("budget", [1, 20, 1000])
def test_scores_equal_one_forward_per_solution_in_the_order_asked(prm, share, budget):
    solutions = some_solutions()
    scores = PrmScorer(prm, token_budget=budget, share_prefixes=share).score(solutions)
    for solution, score in zip(solutions, scores, strict=True):
        torch.testing.assert_close(
            torch.tensor(score.probabilities).reshape(-1, 3),
            torch.tensor(card_loop(prm, solution)).reshape(-1, 3),
            atol=1e-5,
            rtol=0,
        )


@pytest.mark.parametrize("share", [True, False])
def test_a_solution_scores_the_same_alone_and_among_others(prm, share):
    solutions = some_solutions()
    scorer = PrmScorer(prm, share_prefixes=share)
    together = scorer.score(solutions)
    for solution, score in zip(solutions, together, strict=True):
        (alone,) = scorer.score([solution])
        assert alone.values == pytest.approx(score.values, abs=1e-5)


def test_sharing_is_refused_where_it_would_not_give_the_same_scores(make_prm):
    prm = make_prm()
    prm.model.config.model_type = "gemma2"  # caps its attention scores
    with pytest.raises(UsageError, match="share_prefixes: not known for gemma2"):
        PrmScorer(prm, share_prefixes=True)


def test_a_probability_that_underflows_to_zero_shifts_nothing(make_prm):
    # QW-1: a read-out that keeps the non-zero probabilities would give fewer scores than steps
    prm = make_prm()
    with torch.no_grad():
        prm.head.weight *= 1e4
    solution = some_solutions()[0]
    (score,) = PrmScorer(prm).score([solution])
    assert len(score.probabilities) == 3
    assert any(0.0 in p for p in score.probabilities)


def test_the_temperature_of_the_card_divides_the_logits(make_prm):
    prm = make_prm(temperature=4.0)
    solution = some_solutions()[0]
    (score,) = PrmScorer(prm).score([solution])
    torch.testing.assert_close(
        torch.tensor(score.probabilities), torch.tensor(card_loop(prm, solution)), atol=1e-5, rtol=0
    )


def test_a_long_solution_is_read_in_windows_or_refused(make_prm):
    # problem 1 and newline, then steps "3 <mark>" of 2 tokens: with 6 tokens a step sees one step before it
    solution = Solution.from_steps("1", ["3", "4", "5"], " ")
    prm = make_prm(max_tokens=6)
    (score,) = PrmScorer(prm).score([solution])
    encoded = prm.encoder.encode([solution], 6, "window")
    assert [one.steps for one in encoded] == [[0, 1], [2]]
    for one in encoded:
        with torch.no_grad():
            logits_TK = prm.model(input_ids=torch.tensor([one.ids])).logits[0, one.read_positions]
        found = torch.tensor([score.probabilities[step] for step in one.steps])
        torch.testing.assert_close(found, logits_TK.softmax(-1), atol=1e-5, rtol=0)
    with pytest.raises(TooLongError, match=solution.id):
        PrmScorer(prm, too_long="refuse").score([solution])


def test_a_score_that_is_not_a_number_stops_and_names_the_solution(make_prm):
    prm = make_prm()
    solutions = [Solution.from_steps("1", ["3"]), Solution.from_steps("1", ["4", "9"], " ")]
    with torch.no_grad():
        prm.model.get_input_embeddings().weight[prm.tokenizer.convert_tokens_to_ids("9")] = float("nan")
    with pytest.raises(InputError, match=f"{solutions[1].id}, step .: the score is not a number"):
        PrmScorer(prm).score(solutions)


def test_what_does_not_fit_into_memory_goes_in_halves(prm, monkeypatch):
    solutions = some_solutions()
    whole = PrmScorer(prm).score(solutions)
    asked = []
    read_logits = Prm.read_logits

    def tight(self, input_ids_BT, *arguments, **options):
        asked.append(input_ids_BT.numel())
        if input_ids_BT.numel() > 30:
            raise torch.OutOfMemoryError
        return read_logits(self, input_ids_BT, *arguments, **options)

    monkeypatch.setattr(Prm, "read_logits", tight)
    scorer = PrmScorer(prm, token_budget=60)
    with pytest.warns(RuntimeWarning, match="token budget is"):
        halved = scorer.score(solutions)
    first = len(asked)
    scorer.score(solutions)  # a warning would be an error
    assert len(asked) - first < first  # what did not fit is not tried again
    assert max(asked) > 30
    for one, other in zip(whole, halved, strict=True):
        assert one.values == pytest.approx(other.values, abs=1e-5)
    long = Solution.from_steps("1", ["3"] * 20, " ")
    with pytest.raises(InputError, match=f"{long.id}: no memory for its 42 tokens"):
        PrmScorer(prm).score([long])


def test_scoring_leaves_the_model_as_it_was_and_tells_its_progress(prm):
    told = []
    prm.model.train()
    PrmScorer(prm, token_budget=1, progress=lambda *words: told.append(words)).score(some_solutions())
    assert prm.model.training
    prm.model.eval()
    assert told[-1] == ("score", 12, 12, "")
    assert prm.model.config._attn_implementation == "sdpa"
    assert PrmScorer(prm).score([]) == []


@pytest.mark.parametrize("name", READOUTS)
def test_every_kind_of_head_is_read_as_the_card_says(make_prm, name):
    readout = READOUTS[name]
    scored = make_prm(readout=name, members=3 if readout.members else 1)
    scored.card = scored.card.model_copy(update={"temperature": 2.0 if readout.log_probabilities else 1.0})
    solutions = some_solutions()
    for solution, score in zip(solutions, PrmScorer(scored).score(solutions), strict=True):
        (one,) = scored.encoder.encode([solution])
        with torch.no_grad():
            logits_NK = scored.model(input_ids=torch.tensor([one.ids])).logits[0][one.read_positions]
        if readout.log_probabilities is None:
            assert list(score.values) == pytest.approx(logits_NK[:, 0].tolist(), abs=1e-5)
            assert not score.is_bounded
            continue
        expected = readout.probabilities(logits_NK).sqrt()  # temperature 2
        expected = (expected / expected.sum(dim=-1, keepdim=True)).reshape(-1, 3)
        found = torch.tensor(score.probabilities).reshape(-1, 3)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        if readout.uncertainty is None:
            assert score.uncertainty is None
        else:
            assert list(score.uncertainty) == pytest.approx(readout.uncertainty(logits_NK).tolist(), abs=1e-5)


@pytest.mark.parametrize("share", [True, False])
def test_bfloat16_on_the_cpu_scores_as_float32_does_within_two_hundredths(make_prm, tmp_path, share):
    # bfloat16 has 8 significant bits: a logit near 5 moves by some 0.02 a layer, a probability by a quarter of it
    make_prm().save(tmp_path / "checkpoint")
    exact, rounded = (Prm.load(tmp_path / "checkpoint", dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    assert {weight.dtype for weight in rounded.model.model.parameters()} == {torch.bfloat16}
    assert rounded.head.weight.dtype == torch.float32
    scores = [PrmScorer(prm, share_prefixes=share).score(some_solutions()) for prm in (exact, rounded)]
    first, second = (torch.tensor([p for score in given for p in score.probabilities]) for given in scores)
    assert not torch.equal(first, second)
    torch.testing.assert_close(second, first, atol=0.02, rtol=0)
