"""The questions before a deployment: which GPU, which quantization, how many users.

One file a question, each a plain function from specs and facts to a record of answers. `option` is what all of them
are made of: one way to serve a model, judged by the same search as `advise`.
"""
