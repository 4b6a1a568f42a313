"""`python -m keras_fcn` is the command `keras-fcn`."""

import sys

from keras_fcn.commands import main

sys.exit(main())
