import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from prm_kit.errors import InputError, UsageError
from prm_kit.training_state import Standing, TrainingState, check_same_inputs, latest_state


def state(folder) -> TrainingState:
    model = nn.Linear(2, 2)
    return TrainingState(folder, model, torch.optim.AdamW(model.parameters(), lr=0.1))


def step(one: TrainingState) -> None:
    one.optimizer.zero_grad()
    one.model(torch.randn(3, 2)).square().sum().backward()
    one.optimizer.step()
    one.standing.update += 1


def test_a_state_read_back_goes_on_to_the_same_weights(tmp_path):
    torch.manual_seed(0)
    first = state(tmp_path)
    step(first)
    first.save()
    step(first)
    second = state(tmp_path)
    assert second.load()
    assert second.standing == Standing(update=1)
    step(second)
    assert torch.equal(first.model.weight, second.model.weight)


def test_only_the_latest_state_is_kept_and_the_best_weights_with_it(tmp_path):
    one = state(tmp_path)
    step(one)
    one.save(new_best=True)
    best = one.model.weight.detach().clone()
    step(one)
    one.save()
    assert [path.name for path in tmp_path.iterdir()] == ["update-0000002-line-0000000"]
    step(one)
    one.take_best()
    assert torch.equal(one.model.weight, best)


def test_a_state_that_was_not_finished_does_not_count(tmp_path, monkeypatch):
    one = state(tmp_path)
    step(one)
    one.save()
    step(one)
    monkeypatch.setattr("prm_kit.training_state.write_json", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        one.save()
    assert state(tmp_path).load()
    assert latest_state(tmp_path).name.startswith("update-0000001")


def test_without_a_state_there_is_nothing_to_load(tmp_path):
    assert not state(tmp_path / "none").load()


def test_a_damaged_state_is_refused_by_name(tmp_path):
    one = state(tmp_path)
    one.save()
    [file] = (latest_state(tmp_path) / "weights").iterdir()
    file.write_bytes(b"no")
    with pytest.raises(InputError, match=r"update-0000000-line-0000000: this saved state cannot be read"):
        state(tmp_path).load()


def test_weights_that_are_not_all_there_are_refused(tmp_path):
    one = state(tmp_path)
    one.save()
    save_file({"weight": torch.zeros(2, 2)}, next((latest_state(tmp_path) / "weights").iterdir()))
    with pytest.raises(InputError, match=r"cannot be read.*bias"):
        state(tmp_path).load()


def test_a_saved_state_holds_no_code(tmp_path):
    one = state(tmp_path)
    one.save()

    class Hostile:
        def __reduce__(self):
            return print, ("run",)

    torch.save(Hostile(), latest_state(tmp_path) / "random-0.pt")
    with pytest.raises(InputError, match=r"cannot be read"):
        state(tmp_path).load()


def test_other_inputs_are_named_key_by_key(tmp_path):
    path = tmp_path / "inputs.json"
    check_same_inputs(path, {"settings": {"a": 1, "lora": None}, "data": {"train": "x"}})
    check_same_inputs(path, {"settings": {"a": 1, "lora": None}, "data": {"train": "x"}})
    assert json.loads(path.read_text())["settings"]["a"] == 1
    with pytest.raises(UsageError, match=r"settings.a was 1, now 2; settings.lora was None, now 'not there'"):
        check_same_inputs(path, {"settings": {"a": 2, "lora": {"rank": 1}}, "data": {"train": "x"}})
