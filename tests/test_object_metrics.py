import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment

from keras_fcn.metrics import ObjectMetrics

maps = hnp.arrays("int32", (6, 7), elements=st.integers(0, 5))


def brute_force(pairs):
    """The scores by masks and an optimal assignment at each threshold."""
    counts = []
    for threshold in np.linspace(0.5, 0.95, 10):
        found = true = predicted = 0
        for truth, prediction in pairs:
            ts = [truth == n for n in set(truth.ravel().tolist()) - {0}]
            ps = [prediction == n for n in set(prediction.ravel().tolist()) - {0}]
            iou = np.array([[(t & p).sum() / (t | p).sum() for p in ps] for t in ts])
            hits = (iou > threshold + 1e-9).reshape(len(ts), len(ps))
            found += hits[linear_sum_assignment(-hits.astype(float))].sum()
            true, predicted = true + len(ts), predicted + len(ps)
        counts.append((found, true, predicted))
    found, true, predicted = counts[0]
    ratios = [f / (t + p - f) if t + p else np.nan for f, t, p in counts]
    return {
        "object_f1": 2 * found / (true + predicted) if true + predicted else np.nan,
        "object_precision": found / predicted if predicted else np.nan,
        "object_recall": found / true if true else np.nan,
        "average_precision": np.mean(ratios),
    }


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(maps, maps), min_size=1, max_size=3))
def test_scores_are_those_of_brute_force(pairs):
    metric = ObjectMetrics()
    for truth, prediction in pairs:
        metric.update_state(truth, prediction)
    expected = brute_force(pairs)
    result = metric.result()
    assert list(result) == list(expected)
    np.testing.assert_allclose(list(result.values()), list(expected.values()), atol=1e-12)


def test_an_overlap_of_exactly_half_is_no_match():
    metric = ObjectMetrics()
    metric.update_state(np.array([[1, 1]]), np.array([[1, 2]]))  # two of IoU 0.5
    assert metric.result()["object_f1"] == 0


def test_numbers_of_objects_may_be_any():
    truth = np.array([[0, 65535, 65535, 3]], "uint16")
    metric = ObjectMetrics()
    metric.update_state(truth, truth.astype("int32") * 2)
    assert set(metric.result().values()) == {1.0}


def test_no_objects_have_no_score():
    metric = ObjectMetrics()
    metric.update_state(np.zeros((3, 3), int), np.zeros((3, 3), int))
    assert all(np.isnan(score) for score in metric.result().values())


@pytest.mark.parametrize(
    ("truth", "prediction"),
    [
        (np.zeros((2, 2)), np.zeros((2, 2), int)),
        (np.zeros((2, 2), int), np.zeros((2, 3), int)),
        (np.full((2, 2), -1), np.zeros((2, 2), int)),
        (np.zeros((2, 2, 1), int), np.zeros((2, 2, 1), int)),
    ],
)
def test_misfits_are_refused(truth, prediction):
    with pytest.raises(ValueError, match="Instance maps should have one shape"):
        ObjectMetrics().update_state(truth, prediction)
