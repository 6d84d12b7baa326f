"""Evaluation inside training: `evaluators.<name>.Evaluator(predict_fn, ...).run(params)` yields (name, value)."""
