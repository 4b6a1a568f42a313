import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_fcn.label_maps import count_classes, split_labels, to_labels


def test_one_channel_is_two_classes():
    assert [count_classes(channels) for channels in (1, 2, 3)] == [2, 2, 3]
    assert to_labels(np.array([[0.5], [0.500001], [0.0]])).tolist() == [0, 1, 0]


def test_the_highest_score_counts(rng):
    scores = rng.normal(size=(4, 5, 3))
    np.testing.assert_array_equal(to_labels(scores), scores.argmax(-1))


@pytest.mark.parametrize("scores", [[-3, 2], [0.5, 2], [-1, 0.2]])
def test_scores_without_their_sigmoid_are_refused(scores):
    with pytest.raises(ValueError, match=r"probability of class 1.*sigmoid"):
        to_labels(np.reshape(scores, (2, 1)))
    assert to_labels(np.array([[-1e-7], [1 + 1e-7]])).tolist() == [0, 1]  # another runtime's
    assert to_labels(np.zeros((0, 4, 1))).shape == (0, 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 3])
def test_scores_that_are_not_finite_have_no_label(value, channels):
    scores = np.zeros((2, 2, channels))
    scores[1, 0, -1] = value
    with pytest.raises(ValueError, match="at 1 of 4 pixels"):
        to_labels(scores)


@settings(deadline=None)
@given(st.integers(-(2**63), 2**63 - 1))
def test_an_integer_is_a_class_or_refused(label):
    y_true = np.array([label])
    if 0 <= label < 3:
        assert np.asarray(split_labels(y_true, 3)[0]).tolist() == [label]
    else:
        with pytest.raises(ValueError, match="whole numbers from 0 to 2"):
            split_labels(y_true, 3)
