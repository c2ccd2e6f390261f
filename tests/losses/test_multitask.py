"""MultitaskLoss: sums, ablations and invalid input."""

import pickle

import pytest
import torch

from speechbrain_ser_cl.losses import MultitaskLoss
from speechbrain_ser_cl.registry import LOSSES

WEIGHTS = {"emotion": 1.0, "augmentation": 0.1, "contrastive": 0.5, "im": 0.0}


def some_terms():
    values = {"emotion": 2.0, "augmentation": 3.0, "contrastive": 4.0}
    return {k: torch.tensor(v, requires_grad=True) for k, v in values.items()}


def test_weighted_sum_gradients_and_values_to_log():
    terms = some_terms()
    total, values = MultitaskLoss(WEIGHTS)(terms)
    assert total.item() == pytest.approx(1.0 * 2 + 0.1 * 3 + 0.5 * 4)
    total.backward()
    for name, term in terms.items():
        assert term.grad.item() == pytest.approx(WEIGHTS[name])
        assert values[name].item() == term.item()
        assert not values[name].requires_grad


def test_a_term_of_weight_zero_has_no_effect():
    loss = MultitaskLoss(WEIGHTS)
    assert loss.active("contrastive")
    assert not loss.active("im")
    expected, _ = loss(some_terms())
    total, values = loss(some_terms() | {"im": torch.tensor(float("nan"))})
    assert total.item() == expected.item()
    assert values["im"].isnan()


def test_none_leaves_a_term_out_of_one_batch():
    total, values = MultitaskLoss(WEIGHTS)(some_terms() | {"emotion": None})
    assert total.item() == pytest.approx(0.1 * 3 + 0.5 * 4)
    assert set(values) == {"augmentation", "contrastive"}


def test_nan_of_an_active_term_reaches_the_total():
    terms = some_terms() | {"emotion": torch.tensor(float("nan"))}
    assert MultitaskLoss(WEIGHTS)(terms)[0].isnan()


def test_a_forgotten_term_is_an_error():
    terms = some_terms()
    del terms["contrastive"]
    with pytest.raises(ValueError, match=r"without a value: \['contrastive'\]"):
        MultitaskLoss(WEIGHTS)(terms)


def test_a_batch_without_any_term_is_an_error():
    with pytest.raises(ValueError, match="no active term"):
        MultitaskLoss({"emotion": 1.0})({"emotion": None})


def test_unknown_names_are_errors_that_list_the_known_ones():
    loss = MultitaskLoss(WEIGHTS)
    with pytest.raises(ValueError, match=r"\['emotoin'\].*emotion"):
        loss(some_terms() | {"emotoin": torch.tensor(1.0)})
    with pytest.raises(ValueError, match="emotoin"):
        loss.active("emotoin")


@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf")])
def test_wrong_weights_are_refused(weight):
    with pytest.raises(ValueError, match="contrastive"):
        MultitaskLoss({"emotion": 1.0, "contrastive": weight})


@pytest.mark.parametrize("weights", [{}, {"emotion": 0.0}])
def test_no_weight_above_zero_is_refused(weights):
    with pytest.raises(ValueError, match="at least one weight"):
        MultitaskLoss(weights)


def test_registered_and_picklable():
    loss = LOSSES.get("multitask")(WEIGHTS)
    again = pickle.loads(pickle.dumps(loss))
    assert again(some_terms())[0].item() == loss(some_terms())[0].item()
