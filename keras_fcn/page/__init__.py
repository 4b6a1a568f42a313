"""The page of `keras-fcn demo`: what models see in a picture, and dense layers as convolutions.

`pictures`, `answers` and `windows` compute, from pictures to arrays. `markup` writes the HTML in
which an answer is shown, with its pictures inside, so that no file is left behind. `app` with the
two tabs is the layout, the only modules that need Gradio. `serving` binds it to an address.
"""
