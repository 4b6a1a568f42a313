"""Training: a recipe, a run that can be resumed, and its record."""

from keras_fcn.training.callbacks import ImageGrid
from keras_fcn.training.fit import train
from keras_fcn.training.recipe import FACTORIES, Recipe, Task
from keras_fcn.training.run import tuned_arguments

__all__ = ["FACTORIES", "ImageGrid", "Recipe", "Task", "train", "tuned_arguments"]
