"""`keras-fcn plan`: show how a training would be done, and why."""

from keras_fcn.commands.train import add_recipe, make_recipe

EXAMPLE = "keras-fcn plan --data data"


def add(commands):
    """Add `keras-fcn plan` to the commands."""
    plan = commands.add_parser(
        "plan",
        help="show how `keras-fcn train` would train, and why",
        description="Reads the data once, and prints what `keras-fcn train` with the same options "
        "would choose for those that are not given, with a reason for each choice.",
    )
    add_recipe(plan)
    plan.set_defaults(run=run)


def run(options):
    """Run `keras-fcn plan`."""
    from keras_fcn.training.fit import make_plan
    from keras_fcn.training.plan import describe_plan

    recipe, reasons, _ = make_plan(make_recipe(options))
    print("\n".join(describe_plan(recipe, reasons)))
