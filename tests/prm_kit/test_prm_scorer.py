import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from prm_kit.encode import TooLongError
from prm_kit.errors import InputError
from prm_kit.model import Prm
from prm_kit.prm_scorer import PrmScorer
from prm_kit.records import Solution

WORDS = ["[UNK]", "[PAD]", "<|step|>", *map(str, range(10)), "+", "=", "so", "\n"]


def make_prm(**changes: object) -> Prm:
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", extra_special_tokens=["<|step|>"]
    )
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
    )
    prm = Prm.from_backbone(Qwen2ForCausalLM(config), tokenizer)
    with torch.no_grad():
        prm.head.weight.normal_(generator=torch.Generator().manual_seed(1))
    prm.card = prm.card.model_copy(update=changes)
    return prm


@pytest.fixture(scope="module")
def prm() -> Prm:
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


def test_a_probability_that_underflows_to_zero_shifts_nothing():
    # QW-1: a read-out that keeps the non-zero probabilities would give fewer scores than steps
    prm = make_prm()
    with torch.no_grad():
        prm.head.weight *= 1e4
    solution = some_solutions()[0]
    (score,) = PrmScorer(prm).score([solution])
    assert len(score.probabilities) == 3
    assert any(0.0 in p for p in score.probabilities)


def test_the_temperature_of_the_card_divides_the_logits():
    prm = make_prm(temperature=4.0)
    solution = some_solutions()[0]
    (score,) = PrmScorer(prm).score([solution])
    torch.testing.assert_close(
        torch.tensor(score.probabilities), torch.tensor(card_loop(prm, solution)), atol=1e-5, rtol=0
    )


def test_a_long_solution_is_read_in_windows_or_refused():
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


def test_a_score_that_is_not_a_number_stops_and_names_the_solution():
    prm = make_prm()
    solutions = [Solution.from_steps("1", ["3"]), Solution.from_steps("1", ["4", "9"], " ")]
    with torch.no_grad():
        prm.model.get_input_embeddings().weight[WORDS.index("9")] = float("nan")
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
    halved = PrmScorer(prm).score(solutions)
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
