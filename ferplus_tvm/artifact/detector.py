"""What a library says of the face detector in it.

Standard library only, as the manifests that hold it.
"""

from __future__ import annotations

VALUES = 16
"""What the detector computes for a place: two probabilities, four of a box, ten of five points."""
