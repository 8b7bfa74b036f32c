import pytest
import torch
from transformers import Qwen2ForCausalLM

from prm_kit.encode import TooLongError
from prm_kit.engines.engine import Rollout
from prm_kit.errors import InputError
from prm_kit.records import Solution
from prm_kit.released.generative import THINKPRM_OPENING, blocks, yes_share
from prm_kit.released.registry import load_prm
from prm_kit.released.writing import write_until


@pytest.fixture
def scorer(tmp_path, config_of, qwen):
    def load(family):
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config_of("qwen2", qwen, max_position_embeddings=4096)).eval()
        model.save_pretrained(tmp_path)
        qwen.save_pretrained(tmp_path)
        return load_prm(tmp_path, family=family)

    return load


class Script:
    """An engine that writes what a script says after a prompt that ends in given words, however it is cut up."""

    def __init__(self, tokenizer, texts):
        self.tokenizer, self.texts, self.prompts, self.runs = tokenizer, texts, [], []

    def generate(self, prefixes, n, limits):
        found = []
        for prefix in map(list, prefixes):
            run = next((run for run in self.runs if prefix == [*run[0], *run[1]][: len(prefix)]), None)
            if run is None:
                said = self.tokenizer.decode(prefix)
                text = next(text for ending, text in self.texts.items() if said.endswith(ending))
                run = (prefix, [*self.tokenizer.encode(text), self.tokenizer.eos_token_id])
                self.runs.insert(0, run)
                self.prompts.append(said)
            rest = run[1][len(prefix) - len(run[0]) :][: limits.max_new_tokens]
            finish = "stop" if rest[-1] == self.tokenizer.eos_token_id else "length"
            found.append([Rollout(tuple(rest), (0.0,) * len(rest), finish)])
        return found


def last_logits(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0, -1].float()


def test_genprm_reads_yes_against_no_at_the_verdict_of_each_turn(scorer, qwen):
    solution = Solution.from_steps("What is 12 plus 30?", ["We add 12 and 30.", "The sum is 40."])
    scorer = scorer("genprm")
    writing = scorer.writing
    opening = "<analyze>\nLet's analyze the Paragraph {} step by step: "
    output = "<output>\n**Judgement**: $\\boxed"
    writing.engine = Script(
        qwen,
        {
            opening.format(1): "fine, so it adds." + " so" * 200 + "</analyze>\nand more",
            opening.format(2): "12 and 30 are 42.</analyze>\n",
            "so</analyze>\n" + output: "{Yes}$\n</output>\nand more",
            "42.</analyze>\n" + output: "{No}$\n</output>\n",
        },
    )
    (scores,) = scorer.score([solution])

    # The author's way: strings, the template without its last end token, all tokenised again before each answer
    system = "You are a math teacher. Your task is to review and critique the paragraphs in solution step by step."
    messages, expected = [{"role": "system", "content": system}], []
    said = [f"{solution.problem}\n{solution.steps[0]}", solution.steps[1]]
    analyses = ["fine, so it adds." + " so" * 200 + "</analyze>\n", "12 and 30 are 42.</analyze>\n"]
    for number, (text, analysis, word) in enumerate(zip(said, analyses, ["Yes", "No"], strict=True), start=1):
        messages.append({"role": "user", "content": text})
        prompt = qwen.apply_chat_template(messages, tokenize=False).removesuffix("<|im_end|>\n")
        answer = opening.format(number) + analysis + output
        row = last_logits(writing.model, qwen.encode(prompt + answer) + qwen.encode("{")).log_softmax(-1)
        yes, no = (row[qwen.encode(one)[-1]].item() for one in ("Yes", "No"))
        said = yes if word == "Yes" else no
        known = [*row.topk(20).values.tolist(), said]  # a word that is not among them counts as the least of them
        yes, no = (one if one in known else min(known) for one in (yes, no))
        expected.append(torch.tensor([yes, no]).softmax(-1)[0].item())
        messages.append({"role": "assistant", "content": answer + "{" + word + "}$\n</output>\n"})
    assert [p[2] for p in scores.probabilities] == pytest.approx(expected, abs=1e-5)


def test_a_word_beyond_the_twenty_best_counts_as_the_least_of_them():
    # 25 tokens: yes has 0.4, no the last 0.001, and the 20th best 0.02: 0.4 / (0.4 + 0.02). Were no the 20th: as it is
    row = torch.log(torch.tensor([0.4] + [0.03] * 10 + [0.02] * 12 + [0.01, 0.001]))
    assert yes_share(row, 0, 24, "Yes") == pytest.approx(0.4 / 0.42)
    assert yes_share(row, 0, 5, "Yes") == pytest.approx(0.4 / 0.43)
    assert yes_share(row, 24, 0, "No") == pytest.approx(0.02 / 0.42)


def thinkprm_text(opening="Step 1:"):
    return (
        f" {opening} 12 and 30, \\boxed{{incorrect}} no, \\boxed{{correct}}\nStep 2: after Step 1: the sum is "
        "\\boxed{incorrect}\nStep 4: \\boxed{correct}"
    )


def test_thinkprm_reads_the_last_verdict_in_the_block_of_each_step(scorer, qwen):
    steps = ["We add 12 and 30.", "The sum is 40.", "So the answer is 40."]
    solution = Solution.from_steps("What is 12 plus 30?", steps)
    scorer = scorer("thinkprm")
    script = scorer.writing.engine = Script(qwen, {THINKPRM_OPENING: thinkprm_text()})
    (scores,) = scorer.score([solution])

    user = (
        "You are given a math problem and a proposed step-by-step solution:\n\n[Math Problem]\n\nWhat is 12 plus 30?"
        "\n\n[Solution]\n\nStep 1: We add 12 and 30.\nStep 2: The sum is 40.\nStep 3: So the answer is 40.\n\nReview "
        "and critique each step in the proposed solution to determine whether each step is correct. If the solution "
        "is incomplete, only verify the provided steps."
    )
    turns = [{"role": "user", "content": user}]
    prompt = qwen.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) + THINKPRM_OPENING
    assert script.prompts == [prompt]
    text, expected = thinkprm_text(), []
    for verdict in ("no, \\boxed{", "the sum is \\boxed{"):
        written = text[: text.index(verdict) + len(verdict)]
        row = last_logits(scorer.writing.model, qwen.encode(prompt) + qwen.encode(written))
        pair = [qwen.encode("incorrect")[0], qwen.encode("correct")[0]]
        expected.append(row[pair].softmax(-1)[1].item())
    assert [p and p[2] for p in scores.probabilities] == [*(pytest.approx(x, abs=1e-5) for x in expected), None]


def test_a_step_without_a_verdict_has_no_score(scorer, qwen, solutions):
    for family, texts in (
        ("genprm", {"step by step: ": "so so", "boxed": "so so"}),
        ("thinkprm", {"step by step:": " so the answer is 42."}),
    ):
        found = scorer(family)
        found.writing.engine = Script(qwen, texts)
        assert [one.values for one in found.score(solutions)] == [(None,) * len(s.steps) for s in solutions]


class Recorded:
    """An engine whose random numbers come from the seed alone, as those of many servers do: it remembers the seeds."""

    def __init__(self, engine):
        self.engine, self.seeds = engine, []

    def generate(self, prefixes, n, limits):
        self.seeds.append(limits.seed)
        return self.engine.generate(prefixes, n, limits)


def test_every_sample_turn_and_piece_of_a_solution_has_random_numbers_of_its_own_the_same_in_any_batch(
    scorer, qwen, solutions, monkeypatch
):
    monkeypatch.setattr("prm_kit.released.writing._CHUNK", 8)
    found = scorer("genprm")
    writing = found.writing
    writing.temperature, writing.max_new_tokens, writing.samples = 1.0, 20, 2
    engine = writing.engine = Recorded(writing.engine)
    prompt, write = qwen.encode("so the answer"), writing.write
    texts: dict[tuple[int, ...], set[str]] = {}

    def recorded(asked, prompts, stops, sample, turn):
        written = write(asked, prompts, stops, sample, turn)
        for prompt, one in zip(prompts, written, strict=True):
            texts.setdefault((sample, *prompt), set()).add(one.text)
        return written

    writing.write = recorded
    found.score(solutions[:1])
    alone = engine.seeds
    # two samples of two texts in each of three turns, in three pieces each but where one ends by itself
    assert len(set(alone)) == len(alone) > 30
    engine.seeds = []
    found.score(solutions)
    assert set(alone) <= set(engine.seeds)
    assert {len(said) for said in texts.values()} == {1}  # alone and in a batch the same was said
    one, other = (write(solutions[:1], [prompt], [["zzz"]], sample, 1)[0].text for sample in (0, 1))
    assert one != other


def test_a_random_model_that_writes_on_its_own_gives_no_verdict_and_ends(scorer, solutions):
    found = scorer("thinkprm")
    found.writing.max_new_tokens = 20
    assert [one.values for one in found.score(solutions[:2])] == [(None,) * 3, (None,) * 2]


def test_blocks_follow_the_numbers_and_a_look_back_opens_none():
    text = "Step 2: a Step 1: b Step 3: c Step 9: d"
    assert {step: text[start:end] for step, (start, end) in blocks(text, 3).items()} == {
        1: " a Step 1: b ",
        2: " c Step 9: d",
    }
    assert blocks("nothing", 3) == {}


def test_text_ends_with_the_token_that_completes_a_stop_in_whatever_pieces_it_was_written(scorer, qwen):
    found = scorer("thinkprm")
    text = "so the answer" + " is 42." * 100 + " Step 2: more"
    for stops, ending, stop in (([" Step 2:", "zzz"], " Step 2:", " Step 2:"), (["zzz"], " Step 2: more", None)):
        (written,) = write_until(
            Script(qwen, {"go": text}), found.writing.chat, [qwen.encode("go")], [stops], 2048, 0, [0]
        )
        assert written.stop == stop
        assert written.text.endswith(ending)
        assert qwen.decode(written.ids).startswith(written.text)
    assert (
        len(
            write_until(Script(qwen, {"go": text}), found.writing.chat, [qwen.encode("go")], [["zzz"]], 7, 0, [0])[
                0
            ].ids
        )
        == 7
    )


def test_a_prompt_too_long_to_write_after_and_scores_that_are_no_numbers_name_the_solution(scorer, qwen, solutions):
    found = scorer("thinkprm")
    found.writing.max_new_tokens = 4096
    with pytest.raises(TooLongError, match=f"solution {solutions[0].id}: .* lower max_new_tokens"):
        found.score(solutions)
    found.writing.max_new_tokens = 512
    found.writing.engine = Script(qwen, {THINKPRM_OPENING: thinkprm_text()})
    with torch.no_grad():
        found.writing.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(InputError, match=f"solution {solutions[0].id}: the score is not a number"):
        found.score(solutions[:1])
