import sqlite3

import pytest

from labeling.judge.reply import Reply, Usage
from labeling.judge.store import Answer, AnswerStore
from prm_kit.errors import InputError


def answer(key="k", usable=True, text="said", tokens=(10, 5), model="m"):
    return Answer(key, model, Reply(text, "stop", None, f"{model}-1", Usage(1, *tokens)), usable)


@pytest.fixture
def store(tmp_path):
    opened = AnswerStore(tmp_path / "answers.sqlite")
    yield opened
    opened.close()


def test_a_usable_answer_is_given_out_again_as_it_was(store):
    given = answer(text="so \u2264 é \U0001d400")
    store.append([given])
    assert store.get("k") == given.reply
    assert store.get("other") is None


def test_an_unusable_answer_is_kept_and_counted_but_not_given_out(store):
    store.append([answer(usable=False), answer(usable=False, text="again")])
    assert store.get("k") is None
    store.append([answer(text="fine")])
    assert store.get("k").text == "fine"
    assert store.spent("m") == Usage(3, 30, 15)
    assert store.spent("other") == Usage()


def test_an_answer_that_was_cut_off_is_found_as_such_and_only_the_very_same_is_held(store):
    cut_off = Answer("k", "m", Reply("sai\ud800", "length", None, "m-1", Usage(1, 10, 5)), usable=False)
    refused = Answer("r", "m", Reply("", "length", "I will not", "m-1", Usage(1, 10, 5)), usable=False)
    store.append([cut_off, refused])
    assert store.cut_off("k").text == "sai?"
    assert store.cut_off("r") is None
    assert store.holds(cut_off)
    assert store.holds(refused)
    assert not store.holds(answer(usable=False))
    store.append([answer(text="fine")])
    assert store.holds(answer(text="other"))


def test_a_store_without_the_index_of_unusable_answers_gets_it(store):
    plan = "EXPLAIN QUERY PLAN SELECT text FROM answers WHERE key = 'k' AND usable = 0 ORDER BY seq"
    db = sqlite3.connect(store.path)
    db.execute("DROP INDEX unusable_by_key")
    AnswerStore(store.path).close()
    db.execute("SELECT count(*) FROM answers").fetchone()  # EXPLAIN alone does not see that the schema changed
    assert "unusable_by_key" in str(db.execute(plan).fetchall())
    db.close()


def test_the_first_usable_answer_stays(store):
    store.append([answer(text="first")])
    store.append([answer(text="second")])
    assert store.get("k").text == "first"


def test_text_that_no_file_can_hold_is_mended_not_refused(store):
    store.append([answer(text="a\ud800b")])
    assert store.get("k").text == "a?b"


def test_two_open_stores_write_side_by_side(store):
    other = AnswerStore(store.path)
    store.append([answer("a")])
    other.append([answer("b")])
    assert store.get("b") is not None
    assert other.get("a") is not None
    other.close()


def test_facts_are_noted(store):
    assert store.fact("form") is None
    store.note("form", "text")
    store.note("form", "json_object")
    assert store.fact("form") == "json_object"


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path):
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE x (y)")
    db.close()
    with pytest.raises(InputError, match="something else"):
        AnswerStore(other)
    text = tmp_path / "text"
    text.write_text("hello" * 1000)
    with pytest.raises(InputError, match="no store of answers"):
        AnswerStore(text)
    assert text.read_text() == "hello" * 1000
