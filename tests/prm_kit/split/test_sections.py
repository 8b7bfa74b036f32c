import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.split.sections import sections, think_spans


def thoughts(text):
    return [text[start:end] for start, end in think_spans(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no tags, I think", []),
        ("<think>a\n\nb</think>\n\nc", ["a\n\nb"]),
        ("a</think>b", ["a"]),  # the prompt had opened the section
        ("<think>cut off", ["cut off"]),
        ("<think></think>x", [""]),
        ("<think>\n\n</think>x", ["\n\n"]),
        ("<think>a</think>b<think>c</think>d", ["a", "c"]),
        ("<think>a<think>b</think>c", ["a", "b"]),
        ("<think>a</think>b</think>c", ["a"]),
        ("<thinking>a</thinking>b", ["a"]),
        ("<|begin_of_thought|>a<|end_of_thought|>b", ["a"]),
        ("◁think▷a◁/think▷b", ["a"]),
    ],
)
def test_think_sections_are_found_without_their_tags(text, expected):
    assert thoughts(text) == expected


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", "\n", "<", "think>", "/"]), max_size=20))
def test_sections_are_in_order_and_only_tags_lie_between(parts):
    text = "".join(parts)
    position = 0
    for start, end, _ in sections(text):
        assert text[position:start] in ("", "<think>", "</think>")
        assert position <= start <= end
        position = end
    assert position == len(text)
