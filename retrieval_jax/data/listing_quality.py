"""What makes one listing better than another that shows the same: columns of numbers, and how sharp its picture is."""

from __future__ import annotations

import cv2
import numpy as np


def sharpness(picture: np.ndarray) -> float:
    """Measures how sharp a picture is: the logarithm of 1 + the variance of its Laplacian.

    Args:
      picture: uint8 [H, W, 3] RGB.

    Returns:
      About 8 for a sharp picture; 0 for one without any edge.

    Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a comparative study", ICPR 2000.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return float(np.log1p(cv2.Laplacian(grey, cv2.CV_64F).var()))
