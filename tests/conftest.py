"""Settings of every test: the CPU, and absl's flags marked as parsed, which grain's workers ask for."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from absl import flags  # noqa: E402

flags.FLAGS.mark_as_parsed()
