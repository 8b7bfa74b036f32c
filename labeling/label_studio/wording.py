"""What the labelling page says, in every language it speaks."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Literal, get_args

Language = Literal["en", "zh"]
Policy = Literal["all", "first-error"]

LANGUAGES: tuple[str, ...] = get_args(Language)
POLICIES: tuple[str, ...] = get_args(Policy)


@dataclass(frozen=True)
class Wording:
    """One language. `right`, `neutral` and `wrong` stand on the buttons, {placeholders} are filled in."""

    problem: str
    reference: str
    final: str
    unknown: str
    earlier: str
    step: str
    step_option: str
    right: str
    neutral: str
    wrong: str
    missing: str
    comment_step: str
    first_error: str
    bad_problem: str
    wrong_reference: str
    not_sure: str
    comment: str
    part: str
    policy: dict[str, str]


WORDING: dict[Language, Wording] = {
    "en": Wording(
        problem="Problem",
        reference="Reference answer",
        final="Final answer of this solution",
        unknown="not known",
        earlier="Earlier steps (to read; they are labelled on another page)",
        step="Step {number} of {total}",
        step_option="step {number}",
        right="right",
        neutral="neutral",
        wrong="wrong",
        missing="A step has no label yet: look for the grey ones.",
        comment_step="comment on this step",
        first_error="First wrong step (optional: without it the first step labelled wrong counts)",
        bad_problem="the problem is broken",
        wrong_reference="the reference answer is wrong",
        not_sure="I am not sure",
        comment="Comment on the whole solution (optional)",
        part="Page {index} of {total} of this solution: steps {first} to {last}.",
        policy={
            "all": "Label every step.",
            "first-error": "Label up to the first wrong step, then submit; or label every step.",
        },
    ),
    "zh": Wording(
        problem="题目",
        reference="参考答案",
        final="此解答的最终答案",
        unknown="未知",
        earlier="前面的步骤（仅供阅读；在另一页标注）",
        step="第 {number} 步，共 {total} 步",
        step_option="第 {number} 步",
        right="正确",
        neutral="中性",
        wrong="错误",
        missing="还有步骤没有标注：请找灰色的步骤。",
        comment_step="对这一步的评论",
        first_error="第一个错误步骤（可不填：不填时以第一个标为“错误”的步骤为准）",
        bad_problem="题目有问题",
        wrong_reference="参考答案有误",
        not_sure="我不确定",
        comment="对整个解答的评论（可不填）",
        part="此解答的第 {index} 页，共 {total} 页：第 {first} 步到第 {last} 步。",
        policy={
            "all": "请标注每一步。",
            "first-error": "标注到第一个错误步骤为止，然后提交；也可以标注全部步骤。",
        },
    ),
}


def guide(language: Language, policy: Policy, keyboard_rows: tuple[str, str, str]) -> str:
    """The annotator guide as HTML, for the project's instructions.

    Args:
        language: Of the guide.
        policy: What to do after the first wrong step.
        keyboard_rows: The keys for right, neutral and wrong, one a step.
    """
    text = resources.files("labeling.label_studio").joinpath("guide", f"{language}.html").read_text(encoding="utf-8")
    parts = {"right": keyboard_rows[0], "neutral": keyboard_rows[1], "wrong": keyboard_rows[2]}
    for name, keys in parts.items():
        text = text.replace("{keys_" + name + "}", " ".join(keys))
    for other in POLICIES:  # the guide has one section a policy
        start, end = f"<!-- {other} -->", f"<!-- end {other} -->"
        before, _, rest = text.partition(start)
        section, _, after = rest.partition(end)
        text = before + (section if other == policy else "") + after
    return text
