import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from prm_kit.encode import StepEncoder
from prm_kit.errors import InputError
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.step_reading import default_reading
from prm_kit.train_settings import TrainSettings
from prm_kit.training_data import sample_like, training_data


@pytest.fixture(scope="module")
def encoder() -> StepEncoder:
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "<|prm_step|>": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", extra_special_tokens=["<|prm_step|>"]
    )
    return StepEncoder(tokenizer, default_reading(tokenizer))


def labelled(problem, values, rater="a") -> Labelled:
    solution = Solution.from_steps(problem, [f"s{i}" for i in range(len(values))])
    return Labelled(solution, Annotation.of(solution, Rater("human", rater), values))


def made(encoder, train, dev=(), max_tokens=None, **changes):
    return training_data(train, dev, encoder, TrainSettings(backbone="x", **changes), max_tokens)


def test_problems_in_both_sets_and_raters_in_conflict_are_told(encoder):
    train = [labelled("p", [1, -1]), labelled("p", [-1, -1], "b"), labelled("q", [0])]
    found = made(encoder, train, [labelled("q", [1])])
    assert [warning.split(":")[0].split(";")[0] for warning in found.warnings] == [
        "1 problems of the development set are in the training set too",
        "1 steps carry labels that disagree",
        "the development targets are of one class only",
    ]
    assert found.masses == (1.5, 1, 0.5)
    assert found.account["train"]["conflicting_repeats"] == 1


def test_clean_data_raise_no_warning(encoder):
    assert made(encoder, [labelled("p", [1, -1])], [labelled("q", [1, -1])]).warnings == []


def test_sequences_whose_classes_all_weigh_nothing_are_left_out_and_counted(encoder):
    train = [labelled("p", [1, -1]), labelled("q", [0, 0])]
    found = made(encoder, train, class_weights=(1, 0, 1))
    assert len(found.train) == 1
    assert found.account["train"]["dropped_sequences"] == {"sequences of class weight 0": 1}


def test_the_hash_changes_with_the_targets(encoder):
    keep, half = (made(encoder, [labelled("p", [1, 0])], neutral_policy=policy) for policy in ("keep", "half"))
    assert keep.fingerprint()["train"] != half.fingerprint()["train"]


@pytest.mark.parametrize("values", [[1, 1], [None, None]])
def test_one_class_or_none_is_refused_with_the_account(encoder, values):
    with pytest.raises(InputError, match=r"nothing to learn.*'labels': \{'-1': 0"):
        made(encoder, [labelled("p", values)])


def test_a_sample_is_spread_over_all(encoder):
    examples = made(encoder, [labelled(f"p{i}", [1, -1]) for i in range(10)]).train
    assert len(sample_like(examples, 20)) == 10
    sample = sample_like(examples, 4)
    assert [one.solution_id for one in sample] == [examples[i].solution_id for i in (0, 2, 5, 7)]


def test_a_solution_that_ranks_nothing_is_left_out_and_counted(encoder):
    train = [labelled("p", [1, -1]), labelled("q", [1]), labelled("q", [-1], "b")]
    found = made(encoder, train, objective="pqm", neutral_policy="drop")
    assert len(found.train) == 1
    assert found.account["train"]["dropped_sequences"] == {"sequences without a right or wrong step": 1}
