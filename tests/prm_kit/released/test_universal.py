import pytest
import torch
from transformers import Qwen2Model

from prm_kit.encode import TooLongError
from prm_kit.errors import InputError
from prm_kit.records import Solution
from prm_kit.released.registry import load_prm


@pytest.fixture
def twin(tmp_path, config_of, save_twin, qwen):
    def make(name="score", outputs=1):
        torch.manual_seed(0)
        config = config_of("qwen2", qwen)
        trunk, head = Qwen2Model(config).eval(), torch.nn.Linear(16, outputs)
        tensors = {f"model.{key}": tensor for key, tensor in trunk.state_dict().items()}
        tensors |= {f"{name}.{key}": tensor for key, tensor in head.state_dict().items()}
        remote = {"auto_map": {"AutoModel": "modeling.UniversalPRM"}, "architectures": ["UniversalPRM"]}
        save_twin(tmp_path, config, tensors, qwen, **remote)
        return trunk, head

    return make


def rule(trunk, head, tokenizer, solution):
    """The author's demonstration: one forward a prefix, the scalar at the end-of-sequence token."""
    question = f"{solution.problem}\n\n###\n\nThe reference answer is: There is no reference answer for this question."
    messages = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": question}]
    query = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    for k in range(1, len(solution.steps) + 1):
        ids = query + tokenizer("\n\n".join(solution.steps[:k]) + "\n\n")["input_ids"] + [tokenizer.eos_token_id]
        with torch.no_grad():
            scalar = head(trunk(input_ids=torch.tensor([ids])).last_hidden_state[0, -1])
        yield ids, torch.sigmoid(scalar).item()


def test_each_prefix_is_a_sequence_of_its_own(tmp_path, twin, qwen, solutions):
    trunk, head = twin()
    scorer = load_prm(tmp_path, family="universal")
    for solution, scores in zip(solutions, scorer.score(solutions), strict=True):
        expected = list(rule(trunk, head, qwen, solution))
        assert [one.ids for one in scorer.prm.encoder.encode([solution])] == [ids for ids, _ in expected]
        assert [p[2] for p in scores.probabilities] == pytest.approx([right for _, right in expected], abs=1e-5)


def test_the_reference_answer_is_never_shown(tmp_path, twin, solutions):
    twin()
    scorer = load_prm(tmp_path, family="universal")
    known = Solution.from_steps(solutions[0].problem, solutions[0].steps, reference_answer="42")
    assert scorer.score([known]) == scorer.score([Solution.from_steps(known.problem, known.steps)])


@pytest.mark.parametrize("name", ["v_head", "v_head.summary", "reward_head"])
def test_the_head_is_found_under_the_names_in_use(name, tmp_path, twin, solutions):
    twin(name)
    assert len(load_prm(tmp_path, family="universal").score(solutions)) == len(solutions)


def test_a_head_with_two_outputs_or_none_and_a_prefix_that_is_too_long_are_refused(tmp_path, twin, solutions):
    twin(outputs=2)
    with pytest.raises(InputError, match="the head score has 2 outputs, not one"):
        load_prm(tmp_path, family="universal")
    twin("classifier")
    with pytest.raises(InputError, match=r"0 of the heads score, .*, not one"):
        load_prm(tmp_path, family="universal")
    twin()
    scorer = load_prm(tmp_path, family="universal")
    long = Solution.from_steps("Add.", ["1 + 1 + 1" * 200])
    with pytest.raises(TooLongError, match=f"{long.id}: step 0 has .* more than the 512 allowed"):
        scorer.score([long])
