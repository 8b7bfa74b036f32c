import pytest
import torch

from prm_kit.errors import InputError
from rl import log_probabilities
from rl.log_probabilities import token_log_probabilities, token_log_probabilities_and_entropies


def plain(hidden, head, ids):
    logs = torch.log_softmax((hidden @ head.T).float(), dim=-1)
    return logs.gather(-1, ids[..., None])[..., 0], -(logs.exp() * logs).sum(-1)


def tensors(dtype=torch.float32, shape=(2, 5), vocabulary=37, width=8):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(*shape, width, generator=generator).to(dtype).requires_grad_()
    head = torch.randn(vocabulary, width, generator=generator).to(dtype).requires_grad_()
    return hidden, head, torch.randint(0, vocabulary, shape, generator=generator)


@pytest.mark.parametrize("tile", [1, 60, 100, 10**6])
def test_values_and_gradients_equal_the_plain_way(tile):
    hidden, head, ids = tensors()
    upstream = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(1))
    found = token_log_probabilities_and_entropies(hidden, head, ids, tile_elements=tile)
    expected = plain(hidden, head, ids)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    slopes = [torch.autograd.grad((torch.stack(pair) * upstream).sum(), (hidden, head)) for pair in (found, expected)]
    for a, b in zip(*slopes, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_without_entropies_it_is_the_same(monkeypatch):
    hidden, head, ids = tensors(shape=(7,))
    found = token_log_probabilities(hidden, head, ids, tile_elements=50)
    expected, _ = plain(hidden, head, ids)
    assert torch.allclose(found, expected, atol=1e-5)
    slopes = [torch.autograd.grad((x * torch.arange(7)).sum(), (hidden, head)) for x in (found, expected)]
    for a, b in zip(*slopes, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_large_logits_do_not_overflow():
    hidden = torch.tensor([[1.0]])
    head = torch.tensor([[-1e4], [1e4], [0.0], [9e3]])
    found, entropy = token_log_probabilities_and_entropies(hidden, head, torch.tensor([1]), tile_elements=1)
    assert found.tolist() == pytest.approx([0])
    assert entropy.tolist() == pytest.approx([0])


def test_a_frozen_head_gets_no_gradient_and_costs_none():
    hidden, head, ids = tensors()
    expected = torch.autograd.grad(plain(hidden, head, ids)[0].sum(), hidden)[0]
    found = token_log_probabilities(hidden, head.detach(), ids)
    assert torch.allclose(torch.autograd.grad(found.sum(), hidden)[0], expected, atol=1e-5)


def test_bfloat16_is_as_near_as_the_plain_way_is():
    hidden, head, ids = tensors(torch.bfloat16)
    found, expected = token_log_probabilities(hidden, head, ids, tile_elements=60), plain(hidden, head, ids)[0]
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=0.05)
    for a, b in zip(*(torch.autograd.grad(x.sum(), (hidden, head)) for x in (found, expected)), strict=True):
        assert a.dtype == torch.bfloat16
        assert torch.allclose(a.float(), b.float(), atol=0.1)


@pytest.mark.parametrize("way", ["bfloat16", "autocast"])
def test_in_bfloat16_a_sure_token_has_a_log_probability_and_a_gradient_of_0(way):
    # logits of about 17, which bfloat16 rounds by up to 0.06, and far above all others
    head = 4 * torch.nn.functional.normalize(torch.randn(64, 32, generator=torch.Generator().manual_seed(0)))
    ids = torch.arange(20)
    hidden = (torch.linspace(1.0, 1.2, 20)[:, None] * head[:20]).requires_grad_()
    given = (hidden, head) if way == "autocast" else (hidden.bfloat16(), head.bfloat16())
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        found = token_log_probabilities(*given, ids, tile_elements=200)
    expected, _ = plain(hidden.bfloat16(), head.bfloat16(), ids)
    assert (expected > -0.01).all()
    assert torch.allclose(found, expected, atol=1e-4)
    (slope,) = torch.autograd.grad(found.sum(), hidden)
    assert slope.abs().max() < 0.05


def test_no_tensor_of_tokens_by_vocabulary_is_ever_made():
    tokens, vocabulary = 64, 512
    hidden, head, ids = tensors(shape=(tokens,), vocabulary=vocabulary)
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            seen.extend(x.numel() for x in (out if isinstance(out, tuple | list) else [out]) if torch.is_tensor(x))
            return out

    with Watch():
        token_log_probabilities(hidden, head, ids, tile_elements=tokens * 32).sum().backward()
    assert tokens * 32 in seen
    assert max(seen) <= max(tokens * 32, head.numel())
    assert head.grad is not None


def test_no_tokens_at_all():
    hidden, head, _ = tensors()
    assert token_log_probabilities(hidden[0, :0], head, torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_ids_and_shapes_that_do_not_fit_are_refused():
    hidden, head, ids = tensors()
    with pytest.raises(InputError, match="outside of the vocabulary of 37"):
        token_log_probabilities(hidden, head, ids + 37)
    with pytest.raises(InputError, match="do not fit together"):
        token_log_probabilities(hidden, head, ids[0])


def test_tiles_that_are_kept_are_a_small_share_of_all(monkeypatch):
    hidden, head, ids = tensors(shape=(8,), vocabulary=320)
    products = []
    real = log_probabilities._product

    def counted(one, other):
        products.append((len(one), len(other)))
        return real(one, other)

    monkeypatch.setattr(log_probabilities, "_product", counted)
    token_log_probabilities(hidden, head, ids, tile_elements=8 * 16).sum().backward()
    # 20 tiles of 16; 3 of them, 15 %, are kept: 20 forward, 17 again, 20 for the hidden states' gradient
    assert products.count((8, 16)) == 37
    assert products.count((8, 8)) == 20
    products.clear()
    with torch.no_grad():
        token_log_probabilities(hidden, head, ids, tile_elements=8 * 16)
    assert len(products) == 20
    expected = torch.autograd.grad(plain(hidden, head, ids)[0].sum(), (hidden, head))
    for a, b in zip((hidden.grad, head.grad), expected, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_without_onednn_it_is_the_same(monkeypatch):
    hidden, head, ids = tensors()
    found = token_log_probabilities(hidden, head, ids, tile_elements=60)
    monkeypatch.setattr(log_probabilities, "_ONE_DNN", None)
    assert torch.allclose(found, token_log_probabilities(hidden, head, ids, tile_elements=60), atol=1e-6)
