"""A model as a compiled function of one image."""

import weakref

import keras

_compiled = weakref.WeakKeyDictionary()


def compiled(model):
    """Return the model as a compiled function of images of any size."""
    if model not in _compiled:
        # a weak reference: the cache must not keep the model alive
        model_ref = weakref.ref(model)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            _compiled[model] = tf.function(
                lambda images: model_ref()(images, training=False),
                input_signature=[tf.TensorSpec([None, None, None, model.input_shape[-1]])],
            )
        else:
            _compiled[model] = lambda images: model_ref().predict_on_batch(images)
    return _compiled[model]
