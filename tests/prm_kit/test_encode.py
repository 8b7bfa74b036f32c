import json
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from prm_kit.encode import StepEncoder, TooLongError
from prm_kit.errors import UsageError
from prm_kit.plain_text import plain_text_backend
from prm_kit.records import Solution
from prm_kit.step_reading import NEW_MARK, PromptTemplate, StepReading, default_reading

MARK = "<|reserved_special_token_0|>"
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", MARK]
TEXTS = [
    "What is 12 + 7? Step 1: 12 + 7 = 19.\n\nStep 2: So the answer is \\boxed{19}.",
    "Ann has three apples; she buys two more.\nNow she has 3 + 2 = 5 apples.",
    "求解方程 x² = 4，因此 x = 2。\n答案是 2。",
    "a|b <s> </s> <|im_start|> <|im_end|> _ <>",
]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_level() -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(backend, trainers.BpeTrainer, initial_alphabet=alphabet)


def unigram(scheme: str) -> Tokenizer:
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return trained(backend, trainers.UnigramTrainer, unk_token="<unk>", initial_alphabet=sorted({*"".join(TEXTS)}))


def llama_2() -> Tokenizer:
    """SentencePiece BPE the way Llama-2 files have it: the prefix is a normaliser, unknown characters are bytes."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    backend = trained(backend, trainers.BpeTrainer, max_token_length=8)
    file = json.loads(backend.to_str())
    size = len(file["model"]["vocab"])
    file["model"]["vocab"] |= {f"<0x{byte:02X}>": size + byte for byte in range(256)}
    return Tokenizer.from_str(json.dumps(file))


def word_piece() -> Tokenizer:
    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return trained(backend, trainers.WordPieceTrainer)


def trained(backend: Tokenizer, trainer: type, **options: object) -> Tokenizer:
    backend.train_from_iterator(TEXTS, trainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False, **options))
    return backend


def fast(backend: Tokenizer, **options: object) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", **options
    )


BACKENDS = {
    "byte-level": byte_level(),
    "byte-level with prefix space": None,
    "unigram always": unigram("always"),
    "unigram first": unigram("first"),
    "llama-2": llama_2(),
    "word-piece": word_piece(),
}
_prefixed = byte_level()
_prefixed.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
BACKENDS["byte-level with prefix space"] = _prefixed
LOSSLESS = ["byte-level", "unigram always", "unigram first", "llama-2"]
ENCODERS = {
    (name, chat): StepEncoder(tokenizer, default_reading(tokenizer))
    for name, backend in BACKENDS.items()
    for chat in (False, True)
    for tokenizer in [fast(backend, chat_template=CHAT if chat else None)]
}
TEMPLATE_SPACE = re.compile(r"(?<=<s>) +|(?<=<.im_start.>) +|(?<=<.im_end.>) +")
"""SentencePiece opens the text after a special token with a space; that is the template's own affair."""
words = st.sampled_from([*TEXTS, *SPECIAL, "Step 1:", "19", "\n\n", "\n", " ", "=", "答案", "é", "🙂", "x" * 30, "ки"])
steps_texts = st.lists(words, min_size=1, max_size=4).map(" ".join).filter(lambda text: bool(text.strip()))


def solved(problem: str, steps: list[str], separator: str) -> Solution:
    return Solution.from_steps(problem, steps, separator)


some_solutions = st.builds(
    solved, st.lists(words, max_size=3).map("".join), st.lists(steps_texts, min_size=1, max_size=5), words
)


@pytest.mark.parametrize("key", ENCODERS, ids=str)
@settings(max_examples=25, deadline=None)
@given(solution=some_solutions)
def test_every_step_is_read_at_its_own_mark_and_special_ids_come_from_the_template_only(key, solution):
    encoder = ENCODERS[key]
    (one,) = encoder.encode([solution])
    assert one.steps == list(range(len(solution.spans)))
    assert [one.ids[position] for position in one.read_positions] == [encoder.mark_id] * len(solution.spans)
    assert one.ids.count(encoder.mark_id) == len(solution.spans)
    assert one.read_positions[-1] == len(one.ids) - 1
    (empty,) = encoder.encode([solved("", ["a"], " ")])
    special = {encoder.tokenizer.convert_tokens_to_ids(token) for token in SPECIAL[1:]} - {encoder.mark_id}
    for token in special:
        assert one.ids.count(token) == empty.ids[: empty.prompt_length].count(token)


@pytest.mark.parametrize("key", ENCODERS, ids=str)
@settings(max_examples=25, deadline=None)
@given(solution=some_solutions)
def test_the_ids_of_the_first_steps_are_a_prefix_of_the_ids_of_all(key, solution):
    (whole,) = ENCODERS[key].encode([solution])
    for k in range(1, len(solution.spans)):
        shorter = Solution(solution.problem, solution.completion[: solution.spans[k - 1][1]], solution.spans[:k])
        (part,) = ENCODERS[key].encode([shorter])
        assert whole.ids[: len(part.ids)] == part.ids
        assert whole.read_positions[:k] == part.read_positions


@pytest.mark.parametrize("name", LOSSLESS)
@settings(max_examples=25, deadline=None)
@given(solution=some_solutions)
def test_decoding_without_the_marks_gives_the_text_back(name, solution):
    unknown = BACKENDS[name].token_to_id("<unk>")
    for chat in (False, True):
        encoder = ENCODERS[name, chat]
        (one,) = encoder.encode([solution])
        if name.startswith("unigram") and unknown in one.ids:
            continue  # this vocabulary has no bytes to fall back on
        template = encoder.reading.template
        text = template.before + solution.problem + template.after + solution.completion[: solution.spans[-1][1]]
        ids = [index for index in one.ids if index != encoder.mark_id]
        decoded = encoder.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        assert decoded.endswith(solution.completion[: solution.spans[-1][1]])
        assert TEMPLATE_SPACE.sub("", decoded) == TEMPLATE_SPACE.sub("", text)


@pytest.mark.parametrize("key", ENCODERS, ids=str)
def test_encoding_many_at_once_is_encoding_each_alone(key):
    encoder = ENCODERS[key]
    some = [solved(TEXTS[i % 4], TEXTS[: 1 + i % 3], "\n") for i in range(7)]
    alone = [encoder.encode([solution])[0].ids for solution in some]
    together = encoder.encode(some)
    assert [one.ids for one in together] == alone
    assert [one.solution for one in together] == list(range(7))


def test_a_sequence_is_its_segments_and_marks():
    # byte level without merges that matter: every segment alone, then the mark
    tokenizer = fast(BACKENDS["byte-level"])
    encoder = StepEncoder(tokenizer, default_reading(tokenizer))
    (one,) = encoder.encode([solved("P", ["one.", "two."], "\n")])
    alone = [tokenizer.encode(text, add_special_tokens=False) for text in ("P", "\n", "one.", "\ntwo.")]
    mark = encoder.mark_id
    assert one.ids == [tokenizer.bos_token_id, *alone[0], *alone[1], *alone[2], mark, *alone[3], mark]
    assert one.prompt_length == 1 + len(alone[0]) + len(alone[1])


def test_text_after_the_last_span_is_not_encoded():
    encoder = ENCODERS["byte-level", False]
    whole = Solution("P", "one. two. and more", ((0, 4), (5, 9)))
    cut = Solution("P", "one. two.", ((0, 4), (5, 9)))
    assert encoder.encode([whole])[0].ids == encoder.encode([cut])[0].ids


def test_a_solution_without_steps_has_a_prompt_and_no_reads():
    (one,) = ENCODERS["byte-level", True].encode([Solution("P", "nothing", ())])
    assert (one.read_positions, len(one.ids)) == ([], one.prompt_length)


def test_no_prefix_space_opens_a_continuation():
    # TRL-3, rule 6: "x" after "1 " must not become "1  x"
    for name in ("unigram always", "unigram first", "llama-2", "byte-level with prefix space"):
        encoder = ENCODERS[name, False]
        (one,) = encoder.encode([Solution("Ann", "3 + 2 = 5", ((0, 4), (4, 9)))])
        tokens = encoder.tokenizer.convert_ids_to_tokens(one.ids[one.read_positions[0] + 1 :])
        assert not tokens[0].startswith(("▁", "Ġ")), name
        assert encoder.tokenizer.convert_ids_to_tokens(one.ids)[1].startswith(("▁", "Ġ")), name


def test_the_tokenizer_is_left_as_it_was():
    tokenizer = fast(byte_level(), padding_side="left")
    tokenizer.backend_tokenizer.enable_truncation(3)
    before = tokenizer.backend_tokenizer.to_str()
    encoder = StepEncoder(tokenizer, default_reading(tokenizer))
    assert len(encoder.encode([solved("A long problem", ["a step that is long"], "\n")])[0].ids) > 3
    assert tokenizer.backend_tokenizer.to_str() == before


def test_a_solution_that_does_not_fit_is_refused_by_name():
    encoder = ENCODERS["byte-level", False]
    solution = solved("P", ["one.", "two."], "\n")
    length = len(encoder.encode([solution])[0].ids)
    assert len(encoder.encode([solution], max_tokens=length)) == 1
    with pytest.raises(TooLongError, match=f"{solution.id}: {length} tokens, more than the {length - 1} allowed"):
        encoder.encode([solution], max_tokens=length - 1)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.integers(1, 6).map(lambda n: "ab " * n + "."), min_size=1, max_size=9), room=st.integers(8, 60)
)
def test_a_window_reads_each_step_once_with_the_most_context_that_fits(steps, room):
    encoder = ENCODERS["byte-level", False]
    solution = solved("P", steps, "\n")
    (whole,) = encoder.encode([solution])
    prompt = whole.ids[: whole.prompt_length]
    ends = [whole.prompt_length, *(position + 1 for position in whole.read_positions)]
    limit = whole.prompt_length + room
    if max(b - a for a, b in pairwise(ends)) > room:
        with pytest.raises(TooLongError, match=solution.id):
            encoder.encode([solution], limit, "window")
        return
    windows = encoder.encode([solution], limit, "window")
    assert [step for window in windows for step in window.steps] == list(range(len(steps)))
    for window in windows:
        assert len(window.ids) <= limit
        for step, position in zip(window.steps, window.read_positions, strict=True):
            first = next(k for k in range(step + 1) if ends[step + 1] - ends[k] <= room)
            assert window.ids[: position + 1] == prompt + whole.ids[ends[first] : ends[step + 1]]


def test_the_mark_is_a_reserved_token_that_the_template_does_not_use():
    assert ENCODERS["byte-level", True].reading.mark == MARK
    assert ENCODERS["byte-level", True].reading.template == PromptTemplate(
        before="<|im_start|>user\n", after="<|im_end|>\n<|im_start|>assistant\n"
    )
    assert ENCODERS["byte-level", False].reading.template == PromptTemplate(before="<s>", after="\n")


@pytest.mark.parametrize(
    ("reserved", "chosen"),
    [
        (["<|quad_end|>", "<|fim_pad|>", "<extra_0>"], "<extra_0>"),
        (["<|vision_pad|>", "<|fim_pad|>"], "<|fim_pad|>"),
        (["<|reserved_special_token_1|>", "<|step|>"], "<|step|>"),
        (["<file_sep>", "<unused7>"], "<unused7>"),
    ],
)
def test_families_reserve_tokens_under_these_names(reserved, chosen):
    tokenizer = fast(Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>")))
    tokenizer.add_tokens([AddedToken(token, special=True) for token in reserved])
    assert default_reading(tokenizer).mark == chosen


def test_a_vocabulary_without_a_reserve_gets_a_new_mark_with_a_warning_and_is_refused_until_it_is_added():
    tokenizer = fast(Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3}, unk_token="<unk>")))
    with pytest.warns(UserWarning, match="embeddings resized"):
        reading = default_reading(tokenizer)
    assert reading.mark == NEW_MARK
    with pytest.raises(UsageError, match="add it with"):
        StepEncoder(tokenizer, reading)
    tokenizer.add_tokens([NEW_MARK], special_tokens=True)
    assert StepEncoder(tokenizer, reading).mark_id == 4


def test_a_mark_that_the_template_holds_is_refused():
    reading = StepReading(mark="<|im_end|>", template=PromptTemplate(before="<|im_start|>", after="<|im_end|>"))
    with pytest.raises(UsageError, match="holds the mark"):
        StepEncoder(fast(BACKENDS["byte-level"]), reading)


def test_a_mark_that_is_not_flagged_special_cannot_be_written_either():
    # Qwen flags <|fim_pad|> as an ordinary added token
    tokenizer = fast(byte_level())
    tokenizer.add_tokens([AddedToken("<|fim_pad|>", special=False, normalized=False)])
    reading = StepReading(mark="<|fim_pad|>", template=PromptTemplate(before="", after="\n"))
    (one,) = StepEncoder(tokenizer, reading).encode([solved("<|fim_pad|>", ["<|fim_pad|> a", "b"], "<|fim_pad|>")])
    assert one.ids.count(len(tokenizer) - 1) == 2


def test_a_word_level_tokenizer_does_not_read_its_control_words_out_of_text():
    vocabulary = {"<unk>": 0, "<s>": 1, "<step>": 2, "a": 3, "</s>": 4}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["<unk>", "<s>", "<step>", "</s>"])
    encoder = StepEncoder(fast(backend), StepReading(mark="<step>", template=PromptTemplate(before="<s>", after="")))
    (one,) = encoder.encode([solved("a <step> a", ["a </s>", "a"], "\n")])
    assert one.ids == [1, 3, 0, 3, 3, 0, 2, 3, 2]


def test_a_chat_template_that_hides_or_repeats_the_message_is_refused():
    for template in ("fixed", "{{ messages[0]['content'] }}{{ messages[0]['content'] }}"):
        with pytest.raises(UsageError, match="times, not once"):
            default_reading(fast(BACKENDS["byte-level"], chat_template=template))
    with pytest.raises(UsageError, match="cannot be rendered"):
        default_reading(fast(BACKENDS["byte-level"], chat_template="{{ raise_exception('no') }}"))
    with pytest.raises(UsageError, match="no chat template"):
        default_reading(fast(BACKENDS["byte-level"]), chat=True)


def test_a_tokenizer_without_a_backend_is_refused():
    with pytest.raises(UsageError, match="slow tokenizer"):
        StepEncoder(object(), ENCODERS["byte-level", False].reading)


def test_a_piece_that_text_can_still_become_is_refused():
    # the model's unknown token is what any unknown text becomes, so it can never stand for a mark
    with pytest.raises(UsageError, match="cannot be used"):
        plain_text_backend(BACKENDS["unigram always"], literal={0}, continued=True)
