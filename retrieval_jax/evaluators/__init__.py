"""Evaluations during training, by module name."""

import sys
import types

from retrieval_jax import pairs


def get(name: str) -> types.ModuleType:
    """Returns the evaluator's module; raises InputError, listing what exists, for an unknown name."""
    return pairs.module(sys.modules[__name__], name, "evaluation (config.train.evaluations)")
