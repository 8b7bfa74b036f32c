import pytest

from prm_kit.chat import end_of_turn
from prm_kit.engines.engine import Limits, Rollout
from prm_kit.engines.transformers_engine import TransformersEngine
from prm_kit.errors import UsageError
from prm_kit.policy import Policy
from prm_kit.step_reading import chat_template
from prm_kit.tasks.arithmetic_policy import arithmetic_policy, arithmetic_tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] | trim }}<|eot|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PROBLEM = "Start with 37, subtract 7."


def chatting(template=TEMPLATE):
    """A tokenizer with a chat template whose turns end otherwise than its sequences; a model with room for it."""
    tokenizer = arithmetic_tokenizer()
    tokenizer.add_special_tokens(
        {
            "bos_token": "<|begin|>",
            "extra_special_tokens": ["<|step|>", "<|eot|>", "<|user|>", "<|assistant|>", "<|system|>"],
        }
    )
    tokenizer.chat_template = template
    model = arithmetic_policy(0, hidden=16, layers=1)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return model, tokenizer


@pytest.fixture(scope="module")
def policy():
    return Policy.of(*chatting())


def names(policy, ids):
    return policy.tokenizer.convert_ids_to_tokens(ids)


def test_a_problem_is_a_users_message_with_one_beginning_of_the_sequence(policy):
    (ids,) = policy.prompt_ids([PROBLEM])
    words = names(policy, ids)
    assert words[:2] == ["<|begin|>", "<|user|>"]
    assert words[-3:] == ["<|eot|>", "\n", "<|assistant|>"]
    assert words.count("<|begin|>") == 1
    assert policy.tokenizer.decode(ids[2:-3]) == PROBLEM


def test_the_system_prompt_stands_before_it_and_is_saved_with_the_policy(policy, tmp_path):
    policy.save(tmp_path / "plain")
    told = Policy.load(tmp_path / "plain", system_prompt=" 7")
    (ids,) = told.prompt_ids([PROBLEM])
    assert names(told, ids)[:6] == ["<|begin|>", "<|system|>", "7", "<|eot|>", "\n", "<|user|>"]
    told.save(tmp_path / "told")
    assert Policy.load(tmp_path / "told").prompt_ids([PROBLEM]) == [ids]
    assert Policy.load(tmp_path / "told", system_prompt="").prompt_ids([PROBLEM]) != [ids]


def test_what_ends_a_turn_ends_a_completion_and_is_no_part_of_its_text(policy):
    end = policy.tokenizer.convert_tokens_to_ids("<|eot|>")
    assert end_of_turn(policy.tokenizer) == end
    assert set(policy.stop_ids) == {end, policy.tokenizer.eos_token_id}
    (ids,) = policy.completion_ids(["Answer: 90\n"])
    assert ids[-1] == end
    assert policy.text(Rollout(tuple(ids), (0.0,) * len(ids), "stop")) == "Answer: 90\n"


def test_a_rollout_of_a_chat_ends_where_its_turn_does(policy):
    (rollouts,) = TransformersEngine(policy.model).generate(
        policy.prompt_ids([PROBLEM]), 24, Limits(40, policy.stop_ids)
    )
    ended = [one for one in rollouts if one.finish == "stop"]
    assert {one.ids[-1] for one in ended} <= set(policy.stop_ids)
    assert ended
    for one in ended:
        assert "<|eot|>" not in policy.text(one)


def test_a_model_without_a_chat_template_is_asked_in_plain_text(tmp_path):
    policy = Policy.of(arithmetic_policy(0, hidden=16, layers=1), arithmetic_tokenizer())
    assert policy.tokenizer.decode(policy.prompt_ids([PROBLEM])[0]) == PROBLEM + "\n"
    assert policy.stop_ids == (policy.tokenizer.eos_token_id,)
    policy.save(tmp_path)
    with pytest.raises(UsageError, match="a system prompt needs a chat template"):
        Policy.load(tmp_path, system_prompt="Be brief.")


def test_a_template_that_shows_no_system_prompt_is_refused():
    _, tokenizer = chatting("{{ bos_token }}<|user|>{{ messages[-1]['content'] }}<|eot|><|assistant|>")
    with pytest.raises(UsageError, match="does not show a system prompt"):
        chat_template(tokenizer, "Be brief.")


@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "{{ messages[0]['content'] }}", "{{ 1 / 0 }}"])
def test_a_template_that_says_nothing_of_ends_leaves_the_end_of_the_sequence(template):
    _, tokenizer = chatting(template)
    assert end_of_turn(tokenizer) is None
