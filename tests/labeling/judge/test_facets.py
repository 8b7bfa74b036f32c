from itertools import product

import pytest

from labeling.judge.facets import Facets, derived, facets_of, read_facets

YES_NO = ("yes", "no")


# All twelve combinations, written out: correct, verifiable, progress -> label.
TABLE = {
    ("yes", "yes", "yes"): 1,
    ("yes", "yes", "no"): 0,
    ("yes", "no", "yes"): -1,
    ("yes", "no", "no"): -1,
    ("no", "yes", "yes"): -1,
    ("no", "yes", "no"): -1,
    ("no", "no", "yes"): -1,
    ("no", "no", "no"): -1,
    ("unsure", "yes", "yes"): None,
    ("unsure", "yes", "no"): None,
    ("unsure", "no", "yes"): None,
    ("unsure", "no", "no"): None,
}


def test_every_combination_of_facets_has_its_label():
    assert {facets: derived(Facets(*facets)) for facets in product(("yes", "no", "unsure"), YES_NO, YES_NO)} == TABLE


def test_the_code_of_facets_reads_back():
    codes = {Facets(*facets).code for facets in TABLE}
    assert len(codes) == 12
    assert all(facets_of(code).code == code for code in codes)


def test_words_count_whatever_their_case_and_truth_values_are_words():
    given = {"correct": " Yes", "verifiable": True, "progress": False}
    assert read_facets(given) == Facets("yes", "yes", "no")


@pytest.mark.parametrize("value", [2, 1, 0, None, "maybe", "", float("nan"), ["yes"], {"yes": 1}, "1", "yes no"])
def test_nothing_else_is_read_into_anything(value):
    assert read_facets({"correct": value, "verifiable": "yes", "progress": "yes"}) == (
        "correct is not one of yes, no, unsure"
    )


def test_only_correct_may_be_unsure():
    assert read_facets({"correct": "yes", "verifiable": "unsure", "progress": "yes"}) == (
        "verifiable is not one of yes, no"
    )
