"""Each published rule is read here once more, straight from the authors' scripts: one solution, no batching."""

import hashlib

import pytest
import torch
from transformers import LlamaModel, MistralModel, PreTrainedTokenizerFast, Qwen2ForTokenClassification, Qwen2Model

from prm_kit.errors import InputError
from prm_kit.records import Solution
from prm_kit.released.registry import load_prm
from prm_kit.released.token_heads import ALPACA, QWEN_SYSTEM

TRUNKS = {"qwen2": Qwen2Model, "llama": LlamaModel, "mistral": MistralModel}


def head_of(outputs, width=16):
    torch.manual_seed(outputs)
    head = torch.nn.Linear(width, outputs)
    with torch.no_grad():
        head.weight.normal_()
    return head


@pytest.fixture
def twin(config_of, save_twin):
    """A trunk with heads by name, saved under the published tensor names; gives the trunk back."""

    def make(path, kind, tokenizer, heads, **about):
        torch.manual_seed(0)
        config = config_of(kind, tokenizer)
        trunk = TRUNKS[kind](config).eval()
        tensors = {f"model.{name}": tensor for name, tensor in trunk.state_dict().items()}
        for name, head in heads.items():
            tensors |= {f"{name}.{key}": tensor for key, tensor in head.state_dict().items()}
        save_twin(path, config, tensors, tokenizer, **about)
        return trunk

    return make


def hidden_of(trunk, ids):
    with torch.no_grad():
        return trunk(input_ids=torch.tensor([ids])).last_hidden_state[0]


def with_token(tokenizer, token):
    """A copy of a tokenizer with one more special token, added as the authors add it."""
    copied = PreTrainedTokenizerFast(
        tokenizer_object=type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str()),
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        unk_token=tokenizer.unk_token,
    )
    copied.add_special_tokens({"additional_special_tokens": [token]} if token == "[PRM]" else {"pad_token": token})
    return copied


def compare(scorer, solution, ids, positions, right):
    """Ids up to the last reading, the positions, and p(+1) per step are those of the rule."""
    (encoded,) = scorer.prm.encoder.encode([solution])
    assert encoded.ids == ids[: len(encoded.ids)]
    assert encoded.read_positions == positions
    (scores,) = scorer.score([solution])
    assert [p[2] for p in scores.probabilities] == pytest.approx(right, abs=1e-5)


def qwen_rule(trunk, first, second, tokenizer, solution):
    system = "Please reason step by step, and put your final answer within \\boxed{}."
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": solution.problem},
        {"role": "assistant", "content": "<extra_0>".join(solution.steps) + "<extra_0>"},
    ]
    ids = tokenizer.encode(tokenizer.apply_chat_template(messages, tokenize=False))
    positions = [at for at, token in enumerate(ids) if token == tokenizer.encode("<extra_0>")[0]]
    with torch.no_grad():
        logits_S2 = second(first(hidden_of(trunk, ids)[positions]).relu())
    return ids, positions, logits_S2.softmax(-1)[:, 1].tolist()


REMOTE = {
    "architectures": ["Qwen2ForProcessRewardModel"],
    "auto_map": {"AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel"},
}


def test_qwen_prm_is_read_without_its_remote_code(tmp_path, twin, qwen, solutions):
    first, second = head_of(16), head_of(2)
    trunk = twin(tmp_path, "qwen2", qwen, {"score.0": first, "score.2": second}, **REMOTE)
    (tmp_path / "modeling_qwen2_rm.py").write_text("raise SystemExit('run')")
    scorer = load_prm(tmp_path)
    together = scorer.score(solutions)
    for solution, scores in zip(solutions, together, strict=True):
        ids, positions, right = qwen_rule(trunk, first, second, qwen, solution)
        compare(scorer, solution, ids, positions, right)
        assert [p[2] for p in scores.probabilities] == pytest.approx(right, abs=1e-5)


def test_qwen_prm_keeps_a_probability_that_underflows(tmp_path, twin, qwen, solutions):
    # trap 1: the model card keeps non-zero entries and reshapes. Logits (200, 0), (150, 0), (0, 2) in float32:
    # right class [0, 0, 0.8808]; its read-out has 4 numbers left, [1, 1, 0.1192, 0.8808], and so scores [1, 0.8808]
    first, second = head_of(16), head_of(2)
    trunk = twin(tmp_path, "qwen2", qwen, {"score.0": first, "score.2": second}, **REMOTE)
    scorer = load_prm(tmp_path)
    scorer.prm.read_logits = lambda *_, **__: torch.tensor([[200.0, 0.0], [150.0, 0.0], [0.0, 2.0]])
    (scores,) = scorer.score(solutions[:1])
    assert [p[2] for p in scores.probabilities] == pytest.approx([0.0, 0.0, 0.8808], abs=1e-4)
    assert trunk is not None


def test_the_system_prompt_of_qwen_prm_holds_no_backspace():
    # trap 2: "\boxed" in a plain string is a backspace and "oxed"
    assert all(ord(letter) >= 32 for letter in QWEN_SYSTEM)
    assert hashlib.sha256(QWEN_SYSTEM.encode()).hexdigest()[:16] == "1ac42a4db949361d"
    assert hashlib.sha256("".join(ALPACA).encode()).hexdigest()[:16] == "600f380fc5f91a0e"


def test_a_configuration_without_a_padding_token_is_read(tmp_path, twin, qwen, solutions):
    # trap 3: ReasonFlux's config.json names none, which transformers 5 trips over; 151643 is beyond these embeddings
    first, second = head_of(16), head_of(2)
    for pad in (None, 151643):
        twin(tmp_path, "qwen2", qwen, {"score.0": first, "score.2": second}, **REMOTE, pad_token_id=pad)
        scorer = load_prm(tmp_path, family="qwen-prm")
        scorer._share = False
        assert len(scorer.score(solutions)) == len(solutions)


def test_skywork_is_a_sigmoid_at_the_newline_behind_each_step(tmp_path, twin, qwen, solutions):
    head = head_of(1)
    trunk = twin(tmp_path, "qwen2", qwen, {"v_head.summary": head}, architectures=["Qwen2ForPrmModel"])
    scorer = load_prm(tmp_path)
    for solution in solutions:
        ids = qwen.encode(qwen.bos_token + solution.problem + "\n")
        positions = []
        for step in solution.steps:
            ids += [*qwen.encode(step), qwen.encode("\n")[-1]]
            positions.append(len(ids) - 1)
        with torch.no_grad():
            right = head(hidden_of(trunk, ids)[positions])[:, 0].sigmoid().tolist()
        compare(scorer, solution, ids, positions, right)


def test_a_step_of_several_lines_is_one_step_of_skywork(tmp_path, twin, qwen):
    # SK-1: the authors cut at newlines, so that a step with a blank line would be three steps
    twin(tmp_path, "qwen2", qwen, {"v_head.summary": head_of(1)}, architectures=["Qwen2ForPrmModel"])
    scorer = load_prm(tmp_path)
    lines = Solution("Add.", "We add 12\n\nand 30.\nDone.", ((0, 18), (19, 24)))
    flat = Solution.from_steps("Add.", ["We add 12  and 30.", "Done."])
    assert scorer.prm.encoder.encode([lines])[0].ids == scorer.prm.encoder.encode([flat])[0].ids
    assert scorer.score([lines])[0].probabilities == scorer.score([flat])[0].probabilities


@pytest.mark.parametrize(
    ("family", "begins", "separator"), [("trl", True, "\n"), ("pure", False, "\n"), ("trl-blank-lines", True, "\n\n")]
)
def test_trl_tokenises_steps_and_separators_apart(
    family, begins, separator, tmp_path, config_of, mistral, qwen, solutions
):
    # trap 5: jointly tokenised, "30.\n" may be other tokens than "30." and "\n"
    for number, tokenizer in enumerate((qwen, mistral)):
        torch.manual_seed(0)
        model = Qwen2ForTokenClassification(config_of("qwen2", tokenizer, num_labels=2)).eval()
        model.save_pretrained(tmp_path / str(number))
        tokenizer.save_pretrained(tmp_path / str(number))
        scorer = load_prm(tmp_path / str(number), family=family)
        for solution in solutions:
            ids = [tokenizer.bos_token_id] if begins else []
            ids += tokenizer.encode(solution.problem, add_special_tokens=False)
            positions = []
            for step in solution.steps:
                ids += tokenizer.encode(step, add_special_tokens=False)
                ids += tokenizer.encode(separator, add_special_tokens=False)
                positions.append(len(ids) - 1)
            with torch.no_grad():
                right = model(input_ids=torch.tensor([ids])).logits[0, positions].softmax(-1)[:, 1].tolist()
            compare(scorer, solution, ids, positions, right)
            # PURE's reward is p1 - p0, which is the value of a step here
            assert scorer.score([solution])[0].values == pytest.approx([2 * p - 1 for p in right], abs=1e-5)


def reasoneval_rule(trunk, head, tokenizer, solution, seven):
    """The authors' script, step by step: pad tokens as separators, found in the ids and taken out of them."""
    separator = tokenizer.pad_token
    prompt = f"Question:\n{solution.problem}\nAnswer:\nLet's think step by step.\n"
    text = prompt + separator + "".join(step + separator for step in solution.steps)
    separator_id = tokenizer(separator)["input_ids"][-1]
    positions, ids, seen = [], [], 0
    for index, token in enumerate(tokenizer(text)["input_ids"]):
        if token == separator_id:
            positions.append(index - 1 - seen)
            seen += 1
        else:
            ids.append(token)
    ids, positions = ([1, *ids], positions[2:]) if seven else (ids, positions[1:])
    with torch.no_grad():
        return ids, positions, head(hidden_of(trunk, ids)[positions]).softmax(-1).tolist()


@pytest.mark.parametrize("seven", [True, False])
def test_reasoneval_reads_each_size_where_its_script_does(seven, tmp_path, twin, mistral, solutions):
    # RE-1: in the 7B tokenizer the pad token is the first token too, which moves its readings one token forward
    tokenizer = with_token(mistral, "<s>" if seven else "<pad>")
    head = head_of(3)
    about = {"score_dimension": 3, "use_bias": True} if seven else {"score_dim": 3, "bias": True}
    trunk = twin(tmp_path, "mistral" if seven else "llama", tokenizer, {"score_head": head}, **about)
    scorer = load_prm(tmp_path)
    for solution in solutions:
        ids, positions, classes = reasoneval_rule(trunk, head, tokenizer, solution, seven)
        compare(scorer, solution, ids, positions, [p[2] for p in classes])
        (scores,) = scorer.score([solution])
        assert [list(p) for p in scores.probabilities] == [pytest.approx(p, abs=1e-5) for p in classes]
        last = [sum(len(part) for part in parts) for parts in _ends(scorer, solution)]
        assert [at + (1 if seven else 0) for at in positions] == [end - 1 for end in last]


def _ends(scorer, solution):
    """Ids of the prompt and the first k steps, for each k."""
    for k in range(len(solution.steps)):
        part = Solution.from_steps(solution.problem, solution.steps[: k + 1])
        yield [scorer.prm.encoder.encode([part])[0].ids]


def test_pqm_gives_numbers_that_are_no_probabilities(tmp_path, twin, mistral, solutions):
    # PQM-1: a sigmoid over a head that was trained to rank says nothing
    tokenizer, head = with_token(mistral, "[PRM]"), head_of(1)
    trunk = twin(tmp_path, "llama", tokenizer, {"v_head.summary": head})
    scorer = load_prm(tmp_path)
    for solution in solutions:
        query = (
            "Below is an instruction that describes a task.\nWrite a response that appropriately completes the "
            f"request.\n\n### Instruction:\n{solution.problem}\n\n### Response: Let's think step by step"
        )
        steps = [f"Step {k + 1}: {step.strip()}" for k, step in enumerate(solution.steps)]
        ids = tokenizer.encode(f"{query}\n" + " [PRM]\n".join(steps) + " [PRM]", add_special_tokens=False)
        positions = [at for at, token in enumerate(ids) if token == tokenizer.convert_tokens_to_ids("[PRM]")]
        with torch.no_grad():
            right = head(hidden_of(trunk, ids)[positions])[:, 0].tolist()
        (encoded,) = scorer.prm.encoder.encode([solution])
        assert (encoded.ids, encoded.read_positions) == (ids, positions)
        (scores,) = scorer.score([solution])
        assert not scores.is_bounded
        assert scores.values == pytest.approx(right, abs=1e-5)
        assert scores.probabilities == (None,) * len(steps)


def test_the_dropout_of_a_head_is_off(tmp_path, config_of, qwen, solutions):
    # trap 9: the library's default for token classification is 0.1
    model = Qwen2ForTokenClassification(config_of("qwen2", qwen, num_labels=2))
    assert model.dropout.p == 0.1
    model.save_pretrained(tmp_path)
    qwen.save_pretrained(tmp_path)
    scorer = load_prm(tmp_path)
    assert scorer.prm.model.config.classifier_dropout == 0.0
    assert scorer.score(solutions)[0] == scorer.score(solutions)[0]


def test_a_head_of_another_size_and_a_missing_tensor_are_refused(tmp_path, twin, config_of, qwen):
    model = Qwen2ForTokenClassification(config_of("qwen2", qwen, num_labels=5))
    model.save_pretrained(tmp_path / "five")
    qwen.save_pretrained(tmp_path / "five")
    with pytest.raises(InputError, match="the head score has 5 outputs, not 2"):
        load_prm(tmp_path / "five")
    twin(tmp_path / "half", "qwen2", qwen, {"score.0": head_of(16)}, **REMOTE)
    with pytest.raises(InputError, match=r"0 tensors called score\.2\.weight, not one"):
        load_prm(tmp_path / "half")
    twin(tmp_path / "deep", "qwen2", qwen, {"v_head.summary": head_of(1)}, num_hidden_layers=3, layer_types=None)
    with pytest.raises(InputError, match=r"tensors are missing, unknown or of another shape, such as layers\.2"):
        load_prm(tmp_path / "deep")
    twin(tmp_path / "more", "qwen2", qwen, {"v_head.summary": head_of(1), "extra": head_of(2)})
    with pytest.raises(InputError, match=r"such as extra\.bias"):
        load_prm(tmp_path / "more")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"score.weight": torch.ones(16)}, r"score is no linear layer: its tensors have the shapes \[16\] and \[2\]"),
        ({"score.bias": torch.ones(1)}, r"score is no linear layer: .* \[2, 16\] and \[1\]"),
        ({"score.weight": torch.ones(2, 32)}, "the head reads 32 numbers of 16"),
    ],
)
def test_a_head_that_does_not_fit_is_refused_and_never_stretched(tmp_path, config_of, save_twin, qwen, changes, reason):
    config = config_of("qwen2", qwen, num_labels=2)
    tensors = Qwen2ForTokenClassification(config).state_dict() | changes
    save_twin(tmp_path, config, tensors, qwen, architectures=["Qwen2ForTokenClassification"])
    with pytest.raises(InputError, match=reason):
        load_prm(tmp_path)


def test_a_head_with_more_outputs_than_its_family_has_is_refused(tmp_path, twin, qwen):
    twin(tmp_path / "value", "qwen2", qwen, {"v_head.summary": head_of(2)})
    with pytest.raises(InputError, match="the head has 2 outputs, not 1"):
        load_prm(tmp_path / "value")
    twin(tmp_path / "three", "qwen2", qwen, {"score.0": head_of(16), "score.2": head_of(3)}, **REMOTE)
    with pytest.raises(InputError, match="the head has 3 outputs, not 2"):
        load_prm(tmp_path / "three")
