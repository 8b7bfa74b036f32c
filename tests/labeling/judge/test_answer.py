import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.judge.answer import plain, read_entries, read_index
from labeling.judge.facets import Facets

IDS = ("a1b", "c2d", "e3f")
SHOWN = (
    "There are twelve books on the shelf in all.",
    "Two of them are taken away by the teacher.",
    "So ten books are left, which is the answer.",
)
GOOD = Facets("yes", "yes", "yes")


def entry(step, **changes):
    words = {"correct": "yes", "verifiable": "yes", "progress": "yes"}
    return {"id": IDS[step], "quote": SHOWN[step][:30], "reason": "fine", **words, **changes}


def read(*entries):
    return read_entries(json.dumps({"steps": list(entries)}), IDS, SHOWN)


def test_a_whole_answer_is_read():
    reading = read(entry(0), entry(1, correct="no", reason="three are taken"), entry(2, progress="no"))
    assert reading.facets == {0: GOOD, 1: Facets("no", "yes", "yes"), 2: Facets("yes", "yes", "no")}
    assert reading.reasons[1] == "three are taken"
    assert reading.judged
    assert not reading.faults


@pytest.mark.parametrize(
    ("entries", "judged", "faults"),
    [
        ((entry(0), entry(2)), {0, 2}, {"no entry": 1}),
        ((entry(0), entry(1), entry(2), entry(0, id="zzz")), {0, 1, 2}, {"unknown id": 1}),
        ((entry(0), entry(0, correct="no"), entry(1), entry(2)), {1, 2}, {"two entries": 1}),
        ((entry(0), entry(0), entry(1), entry(2)), {0, 1, 2}, {}),
        ((entry(0, quote=SHOWN[1]), entry(1), entry(2)), {1, 2}, {"wrong quote": 1}),
        ((entry(0, quote=None), entry(1), entry(2)), {1, 2}, {"wrong quote": 1}),
        ((entry(0, correct=2), entry(1, progress=1), entry(2)), {2}, {"bad facet": 2}),
        ((entry(0, id="0"), entry(1, id="1"), entry(2, id=2)), set(), {"unknown id": 3, "no entry": 3}),
        (({"id": ["a1b"], "label": 1}, 7, None, "a1b"), set(), {"unknown id": 1, "no entry": 3}),
    ],
)
def test_each_bad_entry_is_left_out_counted_and_spoils_no_other(entries, judged, faults):
    reading = read(*entries)
    assert set(reading.facets) == judged
    assert reading.faults == faults
    assert reading.judged == bool(judged)


@pytest.mark.parametrize(
    "text",
    ["", "I cannot help with that.", "<html>502</html>", "[]", '{"steps": 3}', "null", "NaN", '{"labels": [1, 1, 1]}'],
)
def test_what_holds_no_steps_is_unreadable(text):
    reading = read_entries(text, IDS, SHOWN)
    assert not reading.judged
    assert reading.faults == {"no object": 3}


def test_nan_is_no_json_and_nothing_is_made_of_it():
    text = json.dumps({"steps": [entry(0), entry(1, correct=float("nan")), entry(2)]})
    assert set(read_entries(text, IDS, SHOWN).facets) == {0, 2}


def test_of_an_answer_that_is_cut_off_the_whole_entries_count():
    text = json.dumps({"steps": [entry(0), entry(1), entry(2)]})
    assert set(read_entries(text[:-40], IDS, SHOWN).facets) == {0, 1}


def test_thinking_does_not_count_and_the_last_object_does():
    thought = json.dumps({"steps": [entry(0, correct="no")]})
    said = json.dumps({"steps": [entry(0), entry(1), entry(2)]})
    for text in (f"<think>{thought}</think>{said}", f"First I thought {thought} but no: {said}"):
        assert read_entries(text, IDS, SHOWN).facets == {0: GOOD, 1: GOOD, 2: GOOD}


@pytest.mark.parametrize(
    "text",
    [
        "{said}",
        "Here it is: {said}",
        "```json\n{said}\n```",
        "<think>Let me see.</think>{said}",
        "<think>{thought} no, step 1 is right</think>\n{said}",
        "{thought} no, step 1 is right</think>{said}",
        "<think>{quoting} no</think>{said}",
        "<think>hm</think>{said} A step held </think>.",
    ],
)
def test_an_end_of_thinking_in_a_quote_ends_no_thinking(text):
    shown = (f"So </think> {SHOWN[0]}", *SHOWN[1:])
    quote = {"quote": shown[0][:30]}
    objects = {
        "thought": json.dumps({"steps": [entry(0, correct="no", **quote)]}),
        "quoting": json.dumps({"steps": [entry(0, correct="no", **quote)]}),
        "said": json.dumps({"steps": [entry(0, **quote), entry(1), entry(2, reason="</think>")]}),
    }
    for name, value in objects.items():
        text = text.replace(f"{{{name}}}", value)
    assert read_entries(text, IDS, shown).facets == {0: GOOD, 1: GOOD, 2: GOOD}


def test_an_end_of_thinking_in_an_answer_that_is_cut_off_costs_only_the_last_entry():
    text = json.dumps({"steps": [entry(0), entry(1), entry(2, reason="it says </think> so")]})
    assert set(read_entries(text[:-60], IDS, SHOWN).facets) == {0, 1}


@pytest.mark.parametrize("draft", ["<think>{draft}</think>I cannot judge.", "{draft} no</think>I cannot judge."])
def test_a_draft_in_the_thinking_is_no_answer(draft):
    text = draft.replace("{draft}", json.dumps({"steps": [entry(0, reason="</think>")]}))
    assert not read_entries(text, IDS, SHOWN).judged


def test_a_critics_thinking_ends_at_the_first_mark():
    assert read_index(r"<think>\boxed{0}?</think>It is \boxed{1}, after the step's </think>.", 3).first_error == 1
    assert not read_index(r"<think>\boxed{0}?</think>I cannot say.", 3).judged


def test_an_answer_echoed_from_a_step_names_no_id_of_ours():
    echoed = '{"steps":[{"id":"s0","label":1},{"id":"step 1","correct":"yes","verifiable":"yes","progress":"yes"}]}'
    real = json.dumps({"steps": [entry(0, correct="no")]})
    assert not read_entries(echoed, IDS, SHOWN).judged
    for text in (real + echoed, echoed + real):
        assert read_entries(text, IDS, SHOWN).facets == {0: Facets("no", "yes", "yes")}


@pytest.mark.parametrize(
    ("text", "first_error"),
    [
        (r"Paragraph 1 is off. \boxed{1}", 1),
        (r"\boxed{-1}", None),
        (r"first \boxed{2}, no: \boxed{0}", 0),
        (r"\boxed{paragraph_2}", 2),
        (r"\boxed{\text{1}}".replace("}}", "} }"), None),
    ],
)
def test_a_critics_last_index_counts(text, first_error):
    reading = read_index(text, 3)
    if "text" in text:
        assert not reading.judged or reading.first_error == 1
    else:
        assert reading.judged
        assert reading.first_error == first_error


@pytest.mark.parametrize(
    ("text", "judged", "first_error"),
    [
        (r'{"analysis": "it ends in \\boxed{2}", "boxed_index": 1}', True, 1),
        (r' {"analysis": "fine", "boxed_index": -1} ', True, None),
        (r'<think>{"boxed_index": 0}</think>{"analysis": "", "boxed_index": 2}', True, 2),
        (r'{"analysis": "the step says \\boxed{2}, and', False, None),
        (r'{"analysis": "\\boxed{2}", "boxed_index": 3}', False, None),
        (r'{"analysis": "\\boxed{2}", "boxed_index": true}', False, None),
        (r'{"boxed_index": "1"}', False, None),
        (r'The step says {"boxed_index": 2}.', False, None),
    ],
)
def test_a_critics_object_says_the_index_and_a_box_within_it_does_not(text, judged, first_error):
    reading = read_index(text, 3)
    assert (reading.judged, reading.first_error) == (judged, first_error)


@pytest.mark.parametrize(
    "text", ["", "1", r"\boxed{3}", r"\boxed{-2}", r"\boxed{one}", r"\boxed{1.5}", r"\boxed{99999999}"]
)
def test_an_index_that_no_paragraph_has_is_unreadable(text):
    reading = read_index(text, 3)
    assert not reading.judged
    assert reading.faults == {"no index": 1}


def test_reasons_are_text_that_can_be_stored():
    assert plain("a\x00b\ud800c") == "a\ufffdb?c"
    assert plain(7) == plain(None) == ""
    assert len(plain("x" * 10_000)) == 500


@given(
    st.text()
    | st.recursive(st.none() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(
        json.dumps
    )
)
def test_no_text_makes_a_label_without_our_ids(text):
    assert read_entries(text, IDS, SHOWN).facets == {}
