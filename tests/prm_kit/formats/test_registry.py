import pytest

from prm_kit.errors import UsageError
from prm_kit.formats.format import Layout
from prm_kit.formats.registry import FORMATS, SIGNATURES, format_named, format_of_row, layout_of


def test_an_unknown_format_names_the_nearest_and_all():
    with pytest.raises(UsageError, match=r"Did you mean 'math-shepherd'.*trl"):
        format_named("math_shepherd")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_refuses_an_option_that_it_has_not(name):
    with pytest.raises(UsageError, match="licence"):
        layout_of(FORMATS[name], {"license": "MIT"})


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_what_it_is(name):
    spec = FORMATS[name]
    assert spec.about
    assert issubclass(spec.layout, Layout)
    assert name in (spec.name, "omegaprm")


def test_a_row_tells_its_format_by_its_keys():
    assert format_of_row({"prompt": "p", "completions": [], "labels": []}).name == "trl"
    assert format_of_row({"problem": "p", "steps": [], "labels": []}).name == "steps"
    assert {name for name, _ in SIGNATURES} == {spec.name for spec in FORMATS.values()}
    with pytest.raises(UsageError, match="foo"):
        format_of_row({"foo": 1})
