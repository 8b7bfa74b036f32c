import pytest

from prm_kit.errors import InputError


def chat(*messages, **values):
    return {"messages": [{"role": role, "content": content} for role, content in messages], **values}


def test_a_chat_is_a_problem_and_a_completion_without_steps(read, write):
    row = chat(("system", "be brief"), ("user", "2+3?"), ("assistant", "Add.\n\n5"))
    items = read("chat", row).items
    ((solution, annotations),) = items
    assert (solution.problem, solution.completion, solution.spans, annotations) == ("2+3?", "Add.\n\n5", (), ())
    assert write("chat", items) == row


def test_a_reference_answer_is_read_under_the_key_asked_for(read):
    row = chat(("user", "2+3?"), ("assistant", "5"), answer=5)
    assert read("chat", row, reference_key="answer").items[0].solution.reference_answer == "5"


def test_several_turns_are_read_only_when_asked_for(read):
    row = chat(("user", "hi"), ("assistant", "yes?"), ("user", "2+3?"), ("assistant", "5"))
    with pytest.raises(InputError, match="turns to last"):
        read("chat", row)
    solution = read("chat", row, turns="last").items[0].solution
    assert solution.problem == "2+3?"
    assert len(solution.meta["history"]) == 2


def test_text_parts_are_joined_and_thoughts_come_first(read):
    parts = [{"type": "text", "text": "2+"}, {"type": "text", "text": "3?"}]
    answer = {"role": "assistant", "content": "5", "reasoning_content": "add"}
    row = {"messages": [{"role": "user", "content": parts}, answer]}
    solution = read("chat", row).items[0].solution
    assert (solution.problem, solution.completion) == ("2+3?", "<think>\nadd\n</think>\n\n5")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (chat(("user", "2+3?")), "two or more"),
        (chat(("user", "2+3?"), ("user", "please")), "does not end"),
        (chat(("user", "2+3?"), ("assistant", " ")), "empty"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}, {"role": "assistant", "content": "5"}]},
            "text",
        ),
    ],
)
def test_what_is_no_such_chat_is_refused(read, row, reason):
    with pytest.raises(InputError, match=reason):
        read("chat", row)
