import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from prm_kit.evaluate import DevSplit, evaluate
from prm_kit.records import Annotation, Labelled, Rater, Solution
from prm_kit.report import render, write_report
from prm_kit.score import StepScores

VALUES = [[1, -1], [1, 1], [0, 1], [-1, None]]


def rows(prefix):
    found = []
    for i in range(8):
        values = VALUES[i % 4]
        solution = Solution.from_steps(
            f"{prefix}{i}",
            [f"step $\\frac{{{k}}}{{2}}$" for k in range(2)],
            is_correct=i != 0,
            meta={"subset": f"s{i % 2}"},
        )
        found.append(Labelled(solution, Annotation.of(solution, Rater("human", "a"), values)))
    return found


def scores(items):
    one = {-1: (0.8, 0.1, 0.1), 1: (0.1, 0.1, 0.8), 0: (0.1, 0.8, 0.1), None: None}
    return [StepScores(tuple(one[v] for v in item.annotation.values(2))) for item in items]


@pytest.fixture(scope="module")
def data():
    dev = DevSplit("held out", rows("d"), {"prm": scores(rows("d"))})
    return evaluate(
        rows("e"),
        {"prm": scores(rows("e"))},
        name="rows",
        dev=dev,
        train=rows("t"),
        about={"model": "tiny"},
        resamples=20,
    )


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.opened, self.blocks, self.ids = [], [], []
        self._inside = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.opened.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        self._inside = (tag, attributes) if tag in ("script", "style") else None

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, text):
        if self._inside:
            self.blocks.append((*self._inside, text))


def test_the_page_asks_nothing_of_the_network(data):
    page = Page(render(data))
    for _, attributes in page.opened:
        assert not {"src", "srcset", "action", "style", "onclick", "onload"} & set(attributes)
        assert attributes.get("href", "#").startswith("#")
    assert "link" not in {tag for tag, _ in page.opened}
    assert not re.search(r"url\(|@import|https?://", render(data))


def test_the_policy_allows_our_style_and_script_by_hash_and_nothing_else(data):
    page = Page(render(data))
    (policy,) = [a["content"] for tag, a in page.opened if tag == "meta" and "http-equiv" in a]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    hashes = {
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for tag, attributes, text in page.blocks
        if tag == "style" or "type" not in attributes
    }
    assert hashes == set(re.findall(r"'sha256-[^']+'", policy))
    assert len(hashes) == 2


def test_the_script_is_small(data):
    (script,) = [text for tag, attributes, text in Page(render(data)).blocks if tag == "script" and not attributes]
    assert len(script.encode()) < 5000


def test_the_page_is_the_same_after_a_round_trip_through_json(data):
    assert render(json.loads(json.dumps(data))) == render(data)


def test_the_numbers_for_the_script_are_those_of_the_evaluation(data):
    (block,) = [text for tag, attributes, text in Page(render(data)).blocks if attributes.get("id") == "scores"]
    found = json.loads(block)["solutions"]
    assert [solution["scorers"] for solution in found] == [solution["scorers"] for solution in data["solutions"]]
    assert "frac" not in block


def test_what_was_run_and_every_scorer_and_section_is_on_the_page(data):
    text = render(data)
    page = Page(text)
    assert "<dt>model</dt><dd>tiny</dd>" in text
    assert len(page.ids) == len(set(page.ids))
    for key in ("overview", "first-error", "subset-f1", "steps", "calibration", "differences", "figures", "solutions"):
        assert key in page.ids
    panels = [attributes["data-scorer"] for _, attributes in page.opened if "data-scorer" in attributes]
    assert panels == [scorer["name"] for scorer in data["scorers"]]
    assert "held out" in text


def test_every_svg_has_a_name_for_those_who_cannot_see_it(data):
    images = [attributes for tag, attributes in Page(render(data)).opened if tag == "svg"]
    assert len(images) == 1 + 9 * len(data["scorers"]) + len(data["calibration_after"])
    assert all(image["role"] == "img" and image["aria-label"] for image in images)


def test_latex_is_shown_as_source_and_abstentions_are_named(data):
    text = render(data)
    assert "$\\frac{0}{2}$" in text
    assert "abstains" in text


def test_undefined_figures_are_drawn_as_nothing():
    clean = [item for item in rows("c") if -1 not in item.annotation.values(2)]
    text = render(evaluate(clean, {"prm": scores(clean)}, name="clean", resamples=10, shown=1))
    assert "nan" not in text.lower().replace("nanoseconds", "")


def test_a_scorer_that_only_abstains_can_be_reported():
    silent = [StepScores((None, None)) for _ in rows("e")]
    assert "abstains on" in render(evaluate(rows("e"), {"prm": silent}, name="silent", resamples=10, shown=1))


def test_the_file_is_whole_and_replaces_the_old_one(data, tmp_path):
    path = tmp_path / "deep" / "report.html"
    write_report(path, data)
    write_report(path, data)
    assert path.read_text(encoding="utf-8") == render(data)
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_nothing_is_written_when_the_data_are_not_an_evaluation(tmp_path):
    with pytest.raises(KeyError):
        write_report(tmp_path / "report.html", {"schema": 1})
    assert list(tmp_path.iterdir()) == []
