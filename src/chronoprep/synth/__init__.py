"""Synthetic before/after pairs with exact labels: for trying things out, and as ground truth.

A scene is a backdrop and one to four flat shapes, at most one in each cell of a 3×3 grid. A sample
is two scenes and the edits between them, and everything else follows from that: the pictures, the
instruction, the chain-of-thought prompt, the changed region, and the labels of the swapped and of
the mirrored pair. Noise, exposure, a slight shift of the frame and JPEG artefacts differ between
source and target, so that "no change" is never a matter of equal bytes.
"""

from chronoprep.synth.samples import Sample
from chronoprep.synth.scenes import COLOURS, PATTERNS, PLACES, SHAPES, SIZES, TONES, Scene
from chronoprep.synth.series import sample

__all__ = ["COLOURS", "PATTERNS", "PLACES", "SHAPES", "SIZES", "TONES", "Sample", "Scene", "sample"]
