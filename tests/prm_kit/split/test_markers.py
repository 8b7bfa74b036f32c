import pytest

from prm_kit.split.markers import is_consistent, is_stepwise, numbered
from prm_kit.split.protect import NO_BLOCKS, protect

FORMS = (
    "Step {}: x|**Step {}** x|### Step {}. x|- Step {} - x|STEP {}|{}. x|{}) x|({}) x|{}、x"
    "|步骤 {}：x|步骤{} x|第{}步，x|第 {} 步 x|（{}）x|**{}. x**|  {}. x"
)
OTHERS = ["1.5 pears\n2.5 pears", "1998. A year", "Steps 1 and 2", "Step 3 of it", "a 1. b", "2. a\n3. b"]


def numbers(text):
    return [marker.number for marker in numbered(text, protect(text))]


@pytest.mark.parametrize("pattern", FORMS.split("|"))
def test_markers_are_read_in_all_their_forms(pattern):
    # The 12 at the end does not count on from 3.
    assert numbers("\n".join(pattern.format(n) for n in (1, 2, 3, 12)) + "\r\n") == [1, 2, 3]


def test_chinese_numbers_circled_numbers_and_words_are_read():
    assert numbers("第一步：a\n第二步：b\n第三步：c") == [1, 2, 3]
    listed = "一、a 二、b 三、c 四、d 五、e 六、f 七、g 八、h 九、i 十、j 十一、k 十二、l".replace(" ", "\n")
    assert numbers(listed) == [*range(1, 13)]
    assert numbers("①a\n②b") == [1, 2]
    assert numbers("Step one: a\nStep Two: b") == [1, 2]


@pytest.mark.parametrize("text", [*OTHERS, "```\n1. a\n2. b\n```"])
def test_other_numbers_are_no_markers(text):
    assert numbers(text) == []


def test_step_words_come_before_list_numbers_and_lists_keep_their_level():
    text = "Step 1: a\n1. x\n2. y\n3. z\nStep 2: b"
    assert [marker.family for marker in numbered(text, NO_BLOCKS)] == ["step", "step"]
    text = "1. a\n   1. x\n   2. y\n2. b"
    assert [marker.position for marker in numbered(text, NO_BLOCKS)] == [0, text.index("2. b")]


def test_markers_within_a_line_count_where_no_line_starts_with_them():
    assert numbers("Step 1: a. Step 2: b, by Step 1: yes. Step 3: c") == [1, 2, 3]
    assert numbers("第一步：a。第二步：b。") == [1, 2]


def test_consistent_means_counting_up_once():
    assert is_consistent(numbered("Step 0: a\nStep 1: b", NO_BLOCKS))
    assert not is_consistent(numbered("Step 1: a", NO_BLOCKS))
    assert not is_consistent(numbered("1. a\n2. b\n\nAgain:\n1. c\n2. d", NO_BLOCKS))
    assert is_stepwise(numbered("第1步：a", NO_BLOCKS))
    assert not is_stepwise(numbered("1. a\n2. b", NO_BLOCKS))
    assert not is_stepwise([])
