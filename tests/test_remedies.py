import pytest

from keras_fcn.remedies import choose, on_the_command_line, on_the_page, spell


@pytest.mark.parametrize(
    ("name", "value", "python", "shell"),
    [
        ("ignore", 255, "`ignore=255`", "`--ignore 255`"),
        ("num_classes", 3, "`num_classes=3`", "`--classes 3`"),
        ("values", {0: 0, 255: 1}, "`values={0: 0, 255: 1}`", "`--values 0=0 255=1`"),
        ("colors", {(1, 2, 3): 0}, "`colors={(1, 2, 3): 0}`", "`--colors 1,2,3=0`"),
        ("split", "all[:80%]", "`split='all[:80%]'`", "`--split 'all[:80%]'`"),
        ("tile_size", None, "`tile_size`", "`--tile-size`"),
        ("filters", (4, 8), "`filters=(4, 8)`", "`--filters 4 8`"),
        ("gray", True, "`gray=True`", "`--gray`"),
        ("instances", "two", "`instances='two'`", "`--instances two`"),
        ("instances", "numbers", "`instances='numbers'`", "`--objects`"),
    ],
)
def test_arguments_are_named_as_the_caller_types_them(name, value, python, shell):
    assert spell(name, value) == python
    with on_the_command_line():
        assert spell(name, value) == shell
        assert choose("python", "shell") == "shell"
    assert choose("python", "shell") == "python"


def test_the_page_names_its_field_and_the_options_of_its_command():
    with on_the_command_line():
        with on_the_page():
            assert spell("white", 4095) == "`White: 4095`"
            assert spell("white") == "`White`"
            assert spell("max_pixels", 9) == "`--max-pixels 9`"
            assert choose("python", "shell") == "shell"
            assert choose("python", "shell", "page") == "page"
        assert spell("white", 4095) == "`--white 4095`"
