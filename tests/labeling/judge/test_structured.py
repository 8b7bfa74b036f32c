import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.judge.structured import LADDER, facets_schema, forms_for, objects_in, response_format
from prm_kit.errors import UsageError


def test_a_schema_asks_for_exactly_as_many_entries_as_there_are_steps():
    schema = facets_schema(7, bounded=False)
    entries = schema["properties"]["steps"]
    assert (entries["minItems"], entries["maxItems"]) == (7, 7)
    assert entries["items"]["required"] == ["id", "quote", "reason", "correct", "verifiable", "progress"]
    assert schema["additionalProperties"] is entries["items"]["additionalProperties"] is False
    assert "maxLength" not in json.dumps(schema)
    assert "maxLength" in json.dumps(facets_schema(7, bounded=True))


def test_the_ladder_goes_from_strict_to_nothing():
    types = [(response_format(form, "facets", 3) or {"type": None})["type"] for form in LADDER]
    assert types == ["json_schema", "json_schema", "json_object", None]


def test_a_critic_can_only_name_a_step_that_there_is_or_none():
    schema = response_format("json_schema_bounded", "first_error", 3)["json_schema"]["schema"]
    assert list(schema["properties"]) == schema["required"] == ["analysis", "boxed_index"]  # it thinks first
    assert schema["properties"]["boxed_index"]["enum"] == [-1, 0, 1, 2]
    assert "maxLength" in str(schema)
    assert "maxLength" not in str(response_format("json_schema", "first_error", 3))


def test_a_critic_answers_in_text_unless_a_schema_is_asked_for():
    assert forms_for("facets") == LADDER
    assert forms_for("facets", "text") == forms_for("first_error") == ("text",)
    assert forms_for("first_error", "json_schema") == ("json_schema",)
    with pytest.raises(UsageError, match="json_schema_bounded"):
        forms_for("first_error", "json_object")
    with pytest.raises(UsageError, match="yaml"):
        forms_for("facets", "yaml")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', [{"a": 1}]),
        ('So: ```json\n{"a": {"b": "}"}}\n``` and {"c": 2}.', [{"a": {"b": "}"}}, {"c": 2}]),
        ('{"steps": [{"id": "a"}, {"id": "b"}, {"id": "c', [{"id": "a"}, {"id": "b"}]),
        ("{} [1] { x } nothing", []),
        ('{"a": NaN} {"b": Infinity} {"c": 1}', [{"c": 1}]),
        ("", []),
    ],
)
def test_whole_objects_are_found_in_a_text(text, found):
    assert list(objects_in(text)) == found


def test_latex_that_was_not_escaped_is_read():
    assert list(objects_in(r'{"quote": "so \(x\) is", "n": 1}')) == [{"quote": r"so \(x\) is", "n": 1}]
    assert list(objects_in(r'{"quote": "\sqrt{2} \"and\" \u0041"}')) == [{"quote": '\\sqrt{2} "and" A'}]


@pytest.mark.parametrize("text", ['{"a":' * 10_000, '{"a":[' + "1," * 900_000, '{ "' * 50_000, "{" * 1_000_000])
def test_a_hostile_text_costs_little(text):
    assert list(objects_in(text)) == []


@given(
    st.recursive(st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner, max_size=3), max_leaves=9)
)
def test_what_json_writes_is_read_back(value):
    objects = [value] if isinstance(value, dict) and value else []
    assert list(objects_in(f"before {json.dumps(value)} after"))[: len(objects)] == objects
