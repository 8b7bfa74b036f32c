"""The labelling page: its Label Studio configuration, its keys, and the settings that are fixed for a project.

The keyboard is a table: a column is a step, a row is a label. Keys come from the task data, one list of options a
step, because a key written into the configuration inside a Repeater would label every step at once.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args
from xml.sax.saxutils import quoteattr

from labeling.label_studio.wording import LANGUAGES, POLICIES, WORDING, Language, Policy
from prm_kit.errors import InputError, unknown_name

VERSION = "1"
"""Goes up whenever people would label differently: it is the version of the raters who use the page."""

MAX_STEPS = 14
"""Steps that have keys of their own: two times seven columns."""

Keyboard = Literal["qwerty", "azerty", "qwertz"]
KEYBOARDS: tuple[str, ...] = get_args(Keyboard)

ROWS: dict[Keyboard, tuple[str, str, str]] = {
    "qwerty": ("qwertyo", "asdfghj", "zxcvbnm"),
    "azerty": ("azertyo", "qsdfghj", "wxcvbnm"),
    "qwertz": ("qwertzo", "asdfghj", "yxcvbnm"),
}
"""Keys of the labels +1, 0, -1 for steps 1 to 7; the same with shift for steps 8 to 14. The letters u, i, p, k and l
have other uses in Label Studio."""

FLAGS = ("bad_problem", "wrong_reference", "not_sure")

_MARK = re.compile(r"prm-kit (\{.*\})\s*$", re.DOTALL)


@dataclass(frozen=True)
class Page:
    """What is fixed for a project: another choice is another project.

    Attributes:
        policy: "all": every step is labelled. "first-error": up to the first -1, or all.
        language: Of the page and the guide.
        keyboard: Which keys label.
        version: Of the page.
    """

    policy: Policy = "all"
    language: Language = "en"
    keyboard: Keyboard = "qwerty"
    version: str = VERSION

    def __post_init__(self) -> None:
        for kind, value, known in (
            ("policy", self.policy, POLICIES),
            ("language", self.language, LANGUAGES),
            ("keyboard", self.keyboard, KEYBOARDS),
        ):
            if value not in known:
                raise unknown_name(kind, str(value), known)

    def description(self) -> str:
        """The project's description: for people, and the mark by which these settings are found again."""
        policy = WORDING[self.language].policy[self.policy]
        return f"{policy}\n\nprm-kit {json.dumps(asdict(self), sort_keys=True)}"

    @classmethod
    def of_description(cls, description: str | None) -> Page:
        """Read the settings back from a project's description.

        Raises:
            InputError: The mark is missing or malformed.
        """
        found = _MARK.search(description or "")
        if not found:
            raise InputError("the project's description does not end in the mark that prm-kit wrote there")
        try:
            return cls(**json.loads(found[1]))
        except (ValueError, TypeError) as error:
            raise InputError(f"the mark in the project's description is malformed: {error}") from None


def keys(column: int, keyboard: Keyboard) -> tuple[str, str, str]:
    """Keys that label the step in `column` (from 0) with +1, 0, -1.

    Raises:
        IndexError: There are fourteen columns.
    """
    if not 0 <= column < MAX_STEPS:
        raise IndexError(f"column {column} is not below {MAX_STEPS}")
    shift, letter = ("shift+", column - 7) if column >= 7 else ("", column)
    right, neutral, wrong = (shift + row[letter] for row in ROWS[keyboard])
    return right, neutral, wrong


def options(column: int, page: Page) -> list[dict[str, str]]:
    """Choices of one step for the task data: what the button says (with its key), the label, the key."""
    wording = WORDING[page.language]
    return [
        {"value": f"{name}  [{key.replace('shift+', '⇧').upper()}]", "alias": label, "hotkey": key}
        for name, label, key in zip(
            (wording.right, wording.neutral, wording.wrong), ("1", "0", "-1"), keys(column, page.keyboard), strict=True
        )
    ]


def first_error_options(first: int, last: int, page: Page) -> list[dict[str, str]]:
    """Choices of the first wrong step among the steps `first` to `last` - 1; their aliases are step indices.

    Each gets a key that no keyboard has: Label Studio would hand out letters to choices without one.
    """
    wording = WORDING[page.language]
    return [
        {
            "value": wording.step_option.format(number=step + 1),
            "alias": str(step),
            "hotkey": f"ctrl+alt+shift+f{13 + step - first}",
        }
        for step in range(first, last)
    ]


def configuration(page: Page) -> str:
    """The project's labelling configuration (XML)."""
    wording = WORDING[page.language]
    required = f'required="true" requiredMessage={quoteattr(wording.missing)}' if page.policy == "all" else ""
    flags = "".join(
        f'<Choice value={quoteattr(getattr(wording, flag))} alias="{flag}" hotkey="shift+{number}"/>'
        for number, flag in enumerate(FLAGS, start=1)
    )
    return _PAGE.format(
        style=_STYLE,
        required=required,
        flags=flags,
        **{name: quoteattr(value) for name, value in asdict(wording).items() if isinstance(value, str)},
    )


def prediction(values: dict[int, int]) -> list[dict[str, Any]]:
    """Labels by column as a prediction that fills the page in before somebody looks at it."""
    return [
        {
            "id": f"p{column}",
            "from_name": f"label_{column}",
            "to_name": f"step_{column}",
            "type": "choices",
            "value": {"choices": [str(value)]},
        }
        for column, value in sorted(values.items())
    ]


# A child selector would do for some of these, but Label Studio escapes ">".
_STYLE = """
.prm { max-width: 1200px; margin: 0 auto; }
.lsf-sidepanels__wrapper { display: none; }
.lsf-sidepanels { padding-right: 0 !important; }
.prm .prm-box { background: #f6f7f9; border: 1px solid #dfe3e8; border-radius: 6px; padding: 4px 14px; margin: 6px 0; }
.prm .prm-row { display: flex; gap: 48px; }
.prm .prm-part { color: #667; }
.prm .prm-earlier { max-height: 40vh; overflow-y: auto; color: #556; }
.prm .prm-step { border: 1px solid #dfe3e8; border-left: 6px solid #c9ced6; border-radius: 6px; padding: 2px 12px 6px;
  margin: 6px 0; }
.prm h3, .prm h4 { margin: 3px 0 !important; font-size: 13px; color: #667; }
.prm .prm-step:has(.lsf-choice:nth-of-type(1) .ant-radio-checked) { border-left-color: #2f9e56; background: #eefaf2; }
.prm .prm-step:has(.lsf-choice:nth-of-type(2) .ant-radio-checked) { border-left-color: #d9a514; background: #fdf9ec; }
.prm .prm-step:has(.lsf-choice:nth-of-type(3) .ant-radio-checked) { border-left-color: #d64545; background: #fdf1f1; }
.prm .prm-text { white-space: pre-wrap; overflow-x: auto; overflow-y: hidden; padding: 2px 0 5px; line-height: 1.5; }
.prm .prm-earlier { overflow-y: auto; }
.prm math { font-size: 1.1em; }
.prm .prm-source { background: #eceff3; padding: 0 3px; }
.prm math, .prm math * { font-family: math, "STIX Two Math", "Cambria Math", "Latin Modern Math", "STIX Math",
  "DejaVu Math TeX Gyre", serif !important; }
.prm .prm-over { border-top: 1px solid; padding-top: 1px; }
.prm .prm-under { border-bottom: 1px solid; padding-bottom: 1px; }
.prm .prm-boxed { border: 1px solid; padding: 2px 4px; }
.prm .prm-struck { background: linear-gradient(to top right, transparent 46%, #c33 48%, #c33 52%, transparent 54%); }
.prm .prm-step .lsf-choices { margin: 0; }
.prm .prm-step .lsf-hint { display: none; }
.prm .prm-step .ant-collapse { background: transparent; border: 0; }
.prm .prm-step .ant-collapse-item { border: 0; }
.prm .prm-step .ant-collapse-header { padding: 2px 0 2px 24px; font-size: 12px; color: #667; }
.prm .prm-step .ant-collapse-content-box { padding: 0; }
"""

_PAGE = """<View className="prm">
  <Style>{style}</Style>
  <View className="prm-box">
    <Header value={problem} size="5"/>
    <HyperText name="problem" value="$problem_html" inline="true"/>
    <View className="prm-row">
      <View><Header value={reference} size="5"/><HyperText name="reference" value="$reference_html" inline="true"/></View>
      <View><Header value={final} size="5"/><HyperText name="final" value="$final_html" inline="true"/></View>
    </View>
    <HyperText name="note" value="$note_html" inline="true"/>
  </View>
  <Repeater on="$earlier" indexFlag="{{{{past}}}}">
    <View className="prm-box">
      <Header value={earlier} size="6"/>
      <HyperText name="earlier_{{{{past}}}}" value="$earlier[{{{{past}}}}].html" inline="true"/>
    </View>
  </Repeater>
  <Repeater on="$steps" indexFlag="{{{{idx}}}}">
    <View className="prm-step">
      <Header value="$steps[{{{{idx}}}}].title" size="6"/>
      <HyperText name="step_{{{{idx}}}}" value="$steps[{{{{idx}}}}].html" inline="true"/>
      <Choices name="label_{{{{idx}}}}" toName="step_{{{{idx}}}}" value="$steps[{{{{idx}}}}].options" choice="single-radio" showInline="true" {required}/>
      <Collapse bordered="false"><Panel value={comment_step}><TextArea name="comment_{{{{idx}}}}" toName="step_{{{{idx}}}}" rows="2" maxSubmissions="1" editable="true"/></Panel></Collapse>
    </View>
  </Repeater>
  <View className="prm-box">
    <Header value={first_error} size="6"/>
    <Choices name="first_error" toName="problem" value="$first_error_options" choice="single" layout="select"/>
    <Choices name="flags" toName="problem" choice="multiple" showInline="true">{flags}</Choices>
    <TextArea name="comment" toName="problem" placeholder={comment} rows="2" maxSubmissions="1" editable="true"/>
  </View>
</View>"""  # noqa: E501 - one tag a line
