from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from prm_kit.encode import StepEncoder, TooLongError
from prm_kit.errors import InputError
from prm_kit.examples import Example, class_masses, collate, concatenated_targets, examples_of, examples_sha256
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.step_reading import default_reading
from prm_kit.targets import targets_of


@pytest.fixture(scope="module")
def encoder() -> StepEncoder:
    words = ["[UNK]", "<|prm_step|>", "\n", "p", *"abcdef"]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", extra_special_tokens=["<|prm_step|>"]
    )
    return StepEncoder(tokenizer, default_reading(tokenizer))


def targets(values, steps):
    solution = Solution.from_steps("p", steps, " ")
    return targets_of([Labelled(solution, Annotation.of(solution, Rater("human", "a"), values))]).items


def test_ids_positions_and_targets_belong_together(encoder):
    [one] = examples_of(targets([1, None, -1], ["a", "b c", "d"]), encoder).examples
    # p \n a <step> b c <step> d <step>
    assert one.ids.tolist() == [3, 2, 4, 1, 5, 6, 1, 7, 1]
    assert one.positions.tolist() == [3, 8]
    assert one.targets.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_what_no_target_reads_is_cut_off_the_end_only_when_asked(encoder):
    items = targets([1, None, None], ["a", "b", "c"])
    assert len(examples_of(items, encoder).examples[0].ids) == 8
    assert examples_of(items, encoder, cut_tail=True).examples[0].ids.tolist() == [3, 2, 4, 1]


def test_what_is_too_long_is_refused_windowed_or_dropped_and_counted(encoder):
    items = targets([1, 0, -1], ["a", "b", "c"])
    with pytest.raises(TooLongError):
        examples_of(items, encoder, max_tokens=6)
    dropped = examples_of(items, encoder, max_tokens=6, too_long="drop")
    assert dropped == ([], {"solutions longer than max_tokens": 1})
    windowed = examples_of(items, encoder, max_tokens=6, too_long="window")
    assert [len(one.ids) for one in windowed.examples] == [6, 6]
    assert np.concatenate([one.targets for one in windowed.examples]).tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]


def test_a_window_without_a_target_is_counted(encoder):
    found = examples_of(targets([1, None, None], ["a", "b", "c"]), encoder, max_tokens=4, too_long="window")
    assert len(found.examples) == 1
    assert found.dropped == {"windows without a target": 2}


def example(ids, positions, values) -> Example:
    return Example(
        "x",
        np.array(ids, dtype=np.int32),
        np.array(positions, dtype=np.int32),
        np.eye(3, dtype=np.float32)[[value + 1 for value in values]],
    )


def test_a_batch_by_hand():
    examples = [example([5, 6, 7], [0, 2], [1, -1]), example([8], [0], [0])]
    batch = collate(examples)
    assert batch.ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch.rows.tolist() == [0, 0, 1]
    assert batch.positions.tolist() == [0, 2, 0]
    assert concatenated_targets(examples).tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]


def test_masses_are_sums_of_targets():
    assert class_masses([example([1, 2], [0, 1], [1, 1]), example([1], [0], [-1])]) == (1, 0, 2)


def test_the_hash_sees_ids_positions_targets_and_order():
    a, b = example([1, 2], [0, 1], [1, 1]), example([1, 2], [0, 1], [1, 0])
    others = [[a], [b], [a, b], [b, a], [example([1, 2], [1], [1])], [example([1, 3], [0, 1], [1, 1])]]
    assert len({examples_sha256(other) for other in others}) == len(others)
    assert examples_sha256([a, b]) == examples_sha256([a, b])


def test_a_step_without_a_read_position_stops_and_is_named(encoder, monkeypatch):
    whole = encoder.encode
    items = targets([1, None, -1], ["a", "b", "c"])

    def forgetful(*asked, **changes):
        return [replace(one, read_positions=one.read_positions[:2], steps=one.steps[:2]) for one in whole(*asked)]

    monkeypatch.setattr(encoder, "encode", forgetful)
    with pytest.raises(InputError, match=rf"solution {items[0].solution.id}, step 2: 0 read positions instead of 1"):
        examples_of(items, encoder)
