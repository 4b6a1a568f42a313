"""TensorFlow, started without its chatter."""

import contextlib
import os
import re
import sys
import tempfile

# What TensorFlow says at each start, before it heeds its own log level: information,
# warnings, that logging has not begun, and that there is no GPU driver.
CHATTER = re.compile(
    rb"^([IW]\d{4} |\d{4}-\d\d-\d\d [\d:.]+: [IW] |E.*(cuInit|cuda_dnn|cuda_fft|cuda_blas|cuda_"
    rb"platform|computation_placer)|WARNING: All log messages before absl|To enable the following "
    rb"instructions)"
)


def import_quietly() -> None:
    """Import Keras with its backend and find the devices; drop chatter, and nothing else.

    A user who sets the log level to 0 or 1 wants to see it all.
    """
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "keras" in sys.modules or level in ("0", "1"):
        return
    with _without_chatter():
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.list_physical_devices()


@contextlib.contextmanager
def _without_chatter():
    """Keep what is written to standard error within the block, and then write what matters."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        stderr = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            kept.seek(0)
            for line in kept:
                if not CHATTER.match(line):
                    os.write(2, line)
