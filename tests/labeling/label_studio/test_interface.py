import itertools
import xml.etree.ElementTree as ET

import pytest

from labeling.label_studio.interface import (
    KEYBOARDS,
    MAX_STEPS,
    Page,
    configuration,
    first_error_options,
    keys,
    options,
)
from labeling.label_studio.wording import LANGUAGES, POLICIES, guide
from prm_kit.errors import InputError, UsageError

PAGES = [Page(*choice) for choice in itertools.product(POLICIES, LANGUAGES, KEYBOARDS)]


@pytest.mark.parametrize("keyboard", KEYBOARDS)
def test_no_key_labels_two_steps_or_means_two_things(keyboard):
    page = Page(keyboard=keyboard)
    used = [key for column in range(MAX_STEPS) for key in keys(column, keyboard)]
    used += [option["hotkey"] for option in first_error_options(0, MAX_STEPS, page)]
    used += ["shift+1", "shift+2", "shift+3", "u", "i", "p", "k", "l"]  # flags, and what Label Studio uses itself
    assert len(used) == len(set(used)) == 3 * 14 + 14 + 8


def test_a_column_of_the_keyboard_is_a_step_and_a_row_a_label():
    assert keys(0, "qwerty") == ("q", "a", "z")
    assert keys(6, "qwerty") == ("o", "j", "m")
    assert keys(8, "qwerty") == ("shift+w", "shift+s", "shift+x")
    assert keys(0, "azerty") == ("a", "q", "w")
    assert keys(5, "qwertz") == ("z", "h", "n")
    with pytest.raises(IndexError):
        keys(14, "qwerty")


def test_the_key_is_printed_on_its_button_and_the_label_is_the_alias():
    assert options(7, Page()) == [
        {"value": "right  [⇧Q]", "alias": "1", "hotkey": "shift+q"},
        {"value": "neutral  [⇧A]", "alias": "0", "hotkey": "shift+a"},
        {"value": "wrong  [⇧Z]", "alias": "-1", "hotkey": "shift+z"},
    ]


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_well_formed_and_requires_labels_only_where_every_step_is_labelled(page):
    root = ET.fromstring(configuration(page))
    choices = {found.get("name"): found for found in root.iter("Choices")}
    assert set(choices) == {"label_{{idx}}", "first_error", "flags"}
    assert choices["label_{{idx}}"].get("required") == ("true" if page.policy == "all" else None)
    assert [flag.get("alias") for flag in choices["flags"]] == ["bad_problem", "wrong_reference", "not_sure"]
    assert [found.get("indexFlag") for found in root.iter("Repeater")] == ["{{past}}", "{{idx}}"]


@pytest.mark.parametrize("page", PAGES)
def test_the_description_gives_the_settings_back(page):
    assert Page.of_description(page.description()) == page


@pytest.mark.parametrize("text", ["", None, "mine", "prm-kit {", 'prm-kit {"policy": "some"}', 'prm-kit {"x": 1}'])
def test_a_description_without_our_mark_is_refused(text):
    with pytest.raises((InputError, UsageError)):
        Page.of_description(text)


def test_unknown_settings_are_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match="qwertz"):
        Page(keyboard="qwerts")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_guide_says_what_to_do_after_the_first_error_under_this_policy_only(language):
    rows = ("QWE", "ASD", "ZXC")
    every, first = guide(language, "all", rows), guide(language, "first-error", rows)
    assert every != first
    for text in (every, first):
        assert "<!--" not in text
        assert "{keys_" not in text
        assert "Q W E" in text
        ET.fromstring(f"<div>{text}</div>")
