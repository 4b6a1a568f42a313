import json

import pytest

from keras_fcn.classes import Classes, unique


def test_they_go_through_json():
    classes = Classes(["a", "b"], [(1, 2, 3), (4, 5, 6)], ignore=7, data="d", objects={"t": 0.5})
    assert Classes.from_config(json.loads(json.dumps(classes.to_config()))) == classes


def test_what_is_not_known_has_numbers_and_the_colours_of_voc():
    classes = Classes.default(3)
    assert classes.names == ("class 0", "class 1", "class 2")
    assert classes.palette.tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    assert len(Classes.default(300).palette) == 300


@pytest.mark.parametrize(
    "colors", [[(0, 0, 0)], [(0, 0)] * 2, [(0, 0, 256)] * 2, [(0.5, 0, 0)] * 2]
)
def test_each_class_has_a_colour(colors):
    with pytest.raises(ValueError, match="a name and a colour"):
        Classes(["a", "b"], colors)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"names": 5},
        {"names": ["a"], "other": 1},
        {"names": ["a"], "objects": [1]},
        {"names": ["a"], "colors": [[0, 0, 10**30]]},
        {"names": ["a"], "ignore": "x"},
    ],
)
def test_what_was_not_stored_so_is_refused(config):
    with pytest.raises(ValueError, match="Received"):
        Classes.from_config(config)


def test_names_are_told_apart_also_from_one_with_a_place():
    assert unique(["a", "b"]) == ["a", "b"]
    assert unique(["a", "a", "b"]) == ["a (0)", "a (1)", "b"]
    assert len(set(unique(["a", "a", "a (0)", "a (0) (0)"]))) == 4
