"""A person labels: logs in, reads, presses keys, submits; `pytest -m label_studio`, needs selenium and chromium."""

import json
import os
import random
import shutil
import time

import pytest
from typer.testing import CliRunner

from labeling.label_studio.interface import keys
from labeling.label_studio.tasks import windows
from labeling.label_studio.wording import WORDING
from pipelines import cli
from prm_kit.ledger import Ledger
from prm_kit.records import Annotation, Rater, Solution

pytestmark = [
    pytest.mark.label_studio,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated"),  # inside label-studio-sdk
]
WAIT = 120
SUBMIT = ("ctrl", "enter")


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run",
                     "--window-size=1300,1000", "--disable-background-networking"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    service = webdriver.ChromeService(os.environ.get("CHROMEDRIVER") or shutil.which("chromedriver"))
    opened = webdriver.Chrome(options=options, service=service)
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def person(real_server, browser):
    """Somebody who has logged in."""
    made = Person(browser, real_server)
    made.log_in()
    return made


class Person:
    """Somebody at the browser."""

    def __init__(self, browser, server):
        self.browser, self.server = browser, server

    def find(self, selector):
        return self.browser.find_elements("css selector", selector)

    def until(self, condition, what):
        end = time.monotonic() + WAIT
        while not condition():
            assert time.monotonic() < end, (
                f"waited in vain for {what}; the page says: {self.find('body')[0].text[:1500]}"
            )
            time.sleep(0.2)

    def log_in(self):
        account = self.server.credentials
        # from an empty page: requests of a page that is still open would bring its session's cookie back
        self.browser.get("about:blank")
        self.browser.execute_cdp_cmd("Network.clearBrowserCookies", {})
        self.browser.get(f"{self.server.url}/user/login/")
        self.until(lambda: self.find("[name=email]"), "the login page")
        self.browser.find_element("name", "email").send_keys(account.email)
        self.browser.find_element("name", "password").send_keys(account.password)
        self.find("form [type=submit]")[0].click()
        self.until(lambda: "/login" not in self.browser.current_url, "the login")

    def press(self, key):
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        *held, last = key.split("+")
        special = {"shift": Keys.SHIFT, "ctrl": Keys.CONTROL, "enter": Keys.ENTER, "escape": Keys.ESCAPE}
        chain = ActionChains(self.browser)
        for name in held:
            chain = chain.key_down(special[name])
        chain = chain.send_keys(special.get(last, last))
        for name in held:
            chain = chain.key_up(special[name])
        chain.perform()

    def strike(self, letter, place):
        """Press a key as a keyboard of another layout does: the letter, and where it lies on an American one."""
        key = {"key": letter, "code": f"Key{place.upper()}", "windowsVirtualKeyCode": ord(letter.upper())}
        for kind, more in (("keyDown", {"text": letter}), ("keyUp", {})):
            self.browser.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": kind, **key, **more})

    def checked(self):
        return len(self.find(".prm-step .ant-radio-checked"))

    def shown(self):
        """The text of the first box and of the first step, "" where there is none; read at once, as pages change."""
        texts = "return ['.prm-box', '.prm-step'].map(s => document.querySelector(s)?.innerText ?? '').join(' | ')"
        return self.browser.execute_script(texts)

    def chosen(self):
        """By step what the button says that is chosen, None where none is."""
        return self.browser.execute_script(
            "return [...document.querySelectorAll('.prm-step')].map("
            "step => step.querySelector('.ant-radio-wrapper-checked')?.innerText ?? null)"
        )

    def start(self, project):
        self.browser.get(f"{self.server.url}/projects/{project}/data?labeling=1")
        self.until(lambda: self.find(".prm-step .ant-radio-wrapper"), "the first task")
        self.press("escape")  # the guide opens by itself
        self.until(
            lambda: not self.find("[class*=modal] [class*=instruction], .lsf-modal-ls_visible"), "the guide's end"
        )

    def label(self, name, total, window, values):
        title = f"Step {window.first + 1} of {total}"

        def shown():
            steps = self.find(".prm-step")
            return (
                len(steps) == window.last - window.first
                and title in steps[0].text
                and name in self.find(".prm-box")[0].text
                and self.checked() == 0
            )

        self.until(shown, f"{name}, {title}")
        for column, value in enumerate(values):
            self.press(dict(zip((1, 0, -1), keys(column, "qwerty"), strict=True))[value])
        self.until(lambda: self.checked() == len(values), f"{len(values)} labels")


def call(*words):
    done = CliRunner().invoke(cli.app, ["label", "studio", *map(str, words), "--json"])
    assert done.exit_code == 0, (done.stdout, done.stderr, done.exception)
    return json.loads(done.stdout)


def solutions():
    texts = {7: "Seven", 14: "Fourteen", 30: "Thirty"}
    made = [
        Solution.from_steps(
            f"{name} steps: find $\\sqrt{{{n}}}$.", [f"so $x_{{{i}}} = \\frac{{{i}}}{{2}}$" for i in range(n)]
        )
        for n, name in texts.items()
    ]
    hostile = [
        "<script>document.title='hacked'</script></div><h1>big</h1>",
        "$\\text{<img src=x onerror=\"document.title='hacked'\">}$ {{7*7}}",
    ]
    return [*made, Solution.from_steps("Hostile <img src=x onerror=alert(1)>", hostile, reference_answer="<b>4</b>")]


def test_labels_given_by_keyboard_are_exactly_those_in_the_ledger(real_server, browser, person, tmp_path):
    made = solutions()
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.append((), made)
    where = ("--data", real_server.data, "--ledger", path)
    pushed = call("push", "-o", tmp_path / "push", *where)
    assert pushed["added"] == 6
    choose = random.Random(0)
    wanted = {s.id: tuple(choose.choice((-1, 0, 1)) for _ in s.spans) for s in made}

    person.start(pushed["project"])
    for solution in made:
        for window in windows(len(solution.spans)):
            values = wanted[solution.id][window.first : window.last]
            person.label(solution.problem.split()[0], len(solution.spans), window, values)
            if "Hostile" in solution.problem:
                assert person.find(".prm script, .prm img, .prm h1, .prm b") == []
                assert "<script>" in person.find(".prm-step")[0].text
            person.press("+".join(SUBMIT))
    person.until(lambda: "No more tasks" in person.find("body")[0].text or not person.find(".prm-step"), "the end")

    pulled = call("pull", "-o", tmp_path / "pull", *where)
    with Ledger(path) as ledger:
        found = {a.solution_id: a.values(len(wanted[a.solution_id])) for a in ledger.current()}
        assert {a.rater.kind for a in ledger.current()} == {"human"}
        assert all(a.lead_time > 0 for a in ledger.current())
        assert {a.meta["label_studio"]["origin"] for a in ledger.current()} == {"manual"}
    assert found == wanted
    assert (pulled["stored"], pulled["refused"], pulled["incomplete"]) == (4, 0, 0)
    assert browser.title != "hacked"
    hosts = {
        message["params"]["request"]["url"].split("/")[2]
        for message in (json.loads(line["message"])["message"] for line in browser.get_log("performance"))
        if message["method"] == "Network.requestWillBeSent" and message["params"]["request"]["url"].startswith("http")
    }
    assert hosts == {real_server.url.split("/")[2]}


def test_a_page_with_an_open_step_is_not_submitted_and_one_that_needs_none_is(real_server, person, tmp_path):
    solution = Solution.from_steps("Two steps", ["a", "b"])
    numbers = {}
    for policy in ("all", "first-error"):
        with Ledger(tmp_path / f"{policy}.sqlite") as ledger:
            ledger.append((), [solution])
        words = ("push", "-o", tmp_path / policy, "--project", policy, "--policy", policy, "--data", real_server.data)
        numbers[policy] = call(*words, "--ledger", tmp_path / f"{policy}.sqlite")["project"]
    (window,) = windows(2)
    person.start(numbers["all"])
    person.label("Two", 2, window, [-1])
    person.press("+".join(SUBMIT))
    person.until(lambda: "no label yet" in person.find("body")[0].text, "the warning")
    person.start(numbers["first-error"])
    person.label("Two", 2, window, [-1])
    person.press("+".join(SUBMIT))
    person.until(lambda: not person.find(".prm-step"), "the end")
    for policy, stored in (("all", 0), ("first-error", 1)):
        words = ("pull", "-o", tmp_path / policy, "--project", policy, "--ledger", tmp_path / f"{policy}.sqlite")
        assert call(*words, "--data", real_server.data)["stored"] == stored


def test_a_chinese_azerty_page_is_filled_in_beforehand_and_the_ledger_says_what_was_only_accepted(
    real_server, person, tmp_path
):
    path, judge = tmp_path / "ledger.sqlite", Rater("judge", "m", "1")
    accepted, changed = (Solution.from_steps(f"{name} $x^2$", ["a", "b", "c"]) for name in ("Accepted", "Changed"))
    with Ledger(path) as ledger:
        judged = [Annotation.of(accepted, judge, [1, -1, 0]), Annotation.of(changed, judge, [1, -1, None])]
        ledger.append(judged, [accepted, changed])
    where = ("--data", real_server.data, "--ledger", path, "--project", "azerty")
    page = ("--language", "zh", "--keyboard", "azerty", "--predictions", "judge:m")
    pushed = call("push", "-o", tmp_path / "push", *where, *page)
    assert pushed["predictions"] == 2
    right, neutral, wrong = WORDING["zh"].right, WORDING["zh"].neutral, WORDING["zh"].wrong

    person.start(pushed["project"])
    person.until(lambda: person.checked() == 3, "a page that is filled in")
    assert "Accepted" in person.shown()
    assert WORDING["zh"].step.format(number=1, total=3) in person.shown()
    assert person.chosen() == [f"{right} [A]", f"{wrong} [X]", f"{neutral} [D]"]
    person.press("+".join(SUBMIT))
    person.until(lambda: "Changed" in person.shown() and person.checked() == 2, "the second page")
    person.strike("s", place="s")  # step 2: 0 instead of -1
    person.strike("e", place="e")  # step 3: +1
    person.strike("q", place="a")  # step 1: 0, and ...
    person.strike("a", place="q")  # ... +1 again: where these letters lie is what tells azerty from qwerty
    person.until(lambda: person.chosen() == [f"{right} [A]", f"{neutral} [S]", f"{right} [E]"], "the labels")
    person.press("+".join(SUBMIT))
    person.until(lambda: not person.find(".prm-step"), "the end")

    assert call("pull", "-o", tmp_path / "pull", *where)["stored"] == 2
    with Ledger(path) as ledger:
        found = {a.solution_id: a for a in ledger.current() if a.rater.kind == "human"}
    assert found[accepted.id].values(3) == (1, -1, 0)
    assert found[accepted.id].meta["label_studio"]["origin"] == dict.fromkeys("012", "prediction")
    assert found[changed.id].values(3) == (1, 0, 1)
    origin = found[changed.id].meta["label_studio"]["origin"]
    assert origin == {"0": "prediction-changed", "1": "prediction-changed"}
