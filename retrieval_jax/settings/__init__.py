"""What configs are made of: the default settings, their argument, and what the experiments of a family share.

from retrieval_jax.settings import base

def get_config():
    config = base.defaults()
    config.data.source = "table"
    ...
    return config
"""
