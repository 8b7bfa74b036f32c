import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.evaluate.contamination import contamination, overlaps
from prm_kit.records import Solution

TEXT = "Tom has 3 apples and buys 5 more, so how many apples has Tom now in all?"  # 17 words


def test_a_shared_run_is_found_through_case_and_marks_and_its_share_counted():
    # trained on: other words, then the first 13 words of the text. 17 words are 5 runs of 13; one is shared: 1/5.
    trained = {"t": "Once again: TOM has $3$ apples and buys 5 more; so how many apples has nobody"}
    (found,) = overlaps({"e": TEXT}, trained)
    assert (found.key, found.exact, found.share, found.training) == ("e", False, 0.2, "t")
    assert found.words == "tom has 3 apples and buys 5 more so how many apples has"


def test_twelve_shared_words_are_not_enough():
    assert overlaps({"e": TEXT}, {"t": " ".join(TEXT.split()[:12])}) == []


def test_a_short_text_is_found_as_a_whole_only_and_its_signs_count():
    found = overlaps({"a": "1 + 2", "b": "1 - 2", "c": "1 +  2"}, {"x": "1 + 2"})
    assert [(one.key, one.exact, one.share, one.words) for one in found] == [("a", True, 1.0, ""), ("c", True, 1.0, "")]


def test_a_chinese_text_has_a_word_per_character():
    text = "小明有三个苹果又买了五个苹果现在一共有几个"
    assert overlaps({"e": text}, {"t": "问题：" + text[:14] + "。"})[0].words == " ".join(text[:13])


@given(st.lists(st.text("ab ", max_size=14), max_size=5), st.lists(st.text("ab ", max_size=14), max_size=5))
def test_it_agrees_with_a_search_for_every_run(texts, trained_on):
    def all_runs(text):
        words = text.split()
        return [tuple(words[i : i + 2]) for i in range(len(words) - 1)]

    seen = {run for text in trained_on for run in all_runs(text)}
    found = {one.key: one for one in overlaps(dict(enumerate(texts)), dict(enumerate(trained_on)), 2)}
    for key, text in enumerate(texts):
        same = " ".join(text.split()) in {" ".join(other.split()) for other in trained_on}
        hits = [run for run in all_runs(text) if run in seen]
        assert (key in found) == (same or bool(hits))
        if key in found:
            assert found[key].share == pytest.approx(1.0 if same else len(hits) / len(all_runs(text)))
            assert not hits or tuple(found[key].words.split()) == hits[0]


def test_the_first_training_text_is_named_across_chunks(monkeypatch):
    monkeypatch.setattr("prm_kit.evaluate.contamination._CHUNK", 3)
    rng = random.Random(0)
    trained = {f"t{i}": " ".join(str(rng.random()) for _ in range(9)) for i in range(10)}
    trained["t7"] = trained["t8"] = TEXT
    assert overlaps({"e": "So: " + TEXT}, trained)[0].training == "t7"


def test_problems_and_solutions_are_counted_apart():
    evaluated = [Solution.from_steps(TEXT, ["3 + 5 = 8"]), Solution.from_steps(TEXT, ["3 + 5 = 9"])]
    train = [Solution.from_steps(TEXT.upper(), ["3 + 5 = 8"]), Solution.from_steps("other", ["nothing"])]
    found = contamination(evaluated, iter(train))
    problems, solutions = found["problems"], found["solutions"]
    assert {key: problems[key] for key in ("evaluated", "trained_on", "exact", "sharing", "too_short")} == {
        "evaluated": 1, "trained_on": 2, "exact": 1, "sharing": 1, "too_short": 0,
    }  # fmt: skip
    assert (solutions["evaluated"], solutions["exact"], solutions["too_short"]) == (2, 1, 2)
    assert solutions["listed"][0]["key"] == evaluated[0].id
    assert solutions["listed"][0]["training"] == train[0].id
