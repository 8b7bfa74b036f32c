import pytest

from prm_kit.errors import UsageError
from prm_kit.settings import Settings, load_settings


class Inner(Settings):
    learning_rate: float = 1e-3
    layers: list[int] = []


class Outer(Settings):
    name: str = "x"
    train: Inner = Inner()
    sources: dict[str, Inner] = {}


def write(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_wrong_key_names_file_line_key_and_nearest(tmp_path):
    path = write(tmp_path, "name: a\ntrain:\n  learning_rat: 0.1\n")
    with pytest.raises(
        UsageError, match=r"recipe.yaml:3: train.learning_rat: unknown key; did you mean 'learning_rate'"
    ):
        load_settings(Outer, path)


def test_a_wrong_key_below_a_named_entry_finds_its_nearest(tmp_path):
    path = write(tmp_path, "sources:\n  a:\n    layer: [1]\n")
    with pytest.raises(UsageError, match=r"recipe.yaml:3: sources.a.layer: unknown key; did you mean 'layers'"):
        load_settings(Outer, path)


def test_all_errors_are_told_at_once(tmp_path):
    path = write(tmp_path, "nam: a\ntrain:\n  learning_rate: fast\n")
    with pytest.raises(UsageError) as caught:
        load_settings(Outer, path)
    assert len(str(caught.value).splitlines()) == 2


def test_a_number_in_exponent_form_is_a_number(tmp_path):
    assert load_settings(Outer, write(tmp_path, "train: {learning_rate: 1e-5}")).train.learning_rate == 1e-5


def test_overrides_win_over_the_file(tmp_path):
    path = write(tmp_path, "train: {learning_rate: 1}")
    found = load_settings(Outer, path, ["train.learning_rate=2e-4", "train.layers=[1, 2]", "name=b"])
    assert found == Outer(name="b", train=Inner(learning_rate=2e-4, layers=[1, 2]))


@pytest.mark.parametrize("override", ["name", "=3", "name.sub=1"])
def test_an_override_that_is_no_assignment_is_refused(tmp_path, override):
    with pytest.raises(UsageError, match="override"):
        load_settings(Outer, write(tmp_path, "name: a"), [override])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: a\nname: b\n", "recipe.yaml:2: name: key given twice"),
        ("a: &x [1]\nb: *x\n", "recipe.yaml:2: YAML aliases"),
        ("name: !!python/object/apply:os.system [id]\n", "recipe.yaml:1: not valid YAML"),
        ("name: [1\n", "not valid YAML"),
        ("- 1\n", "mapping of keys to values"),
    ],
)
def test_yaml_that_is_not_plain_is_refused_with_its_line(tmp_path, text, reason):
    with pytest.raises(UsageError, match=reason):
        load_settings(Outer, write(tmp_path, text))


def test_a_missing_file_is_wrong_use(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        load_settings(Outer, tmp_path / "none.yaml")
