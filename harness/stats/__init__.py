"""How sure one can be. Every figure with an interval, a p-value or a plan comes from here.

The unit of observation is the utterance, never a packet, a frame or a repetition: cells of one
utterance are alike, so their mean is one observation (Cochran 1977, 10.3). Codecs of one *block*
(utterance, repetition and network) met the same link, so they are compared within blocks.

``estimate`` has means and their intervals, ``resample`` the one bootstrap, ``difference`` paired
differences and the test of a family of them, ``power`` how many utterances a test needs, ``curves``
sweeps and their crossings, ``agreement`` two runs of the same cells. All is pure; what draws takes
a seed. Below :data:`MIN_CLUSTERS` utterances there is neither interval nor p-value, but None.
"""

from harness.stats.estimate import LEVEL, MIN_CLUSTERS, Estimate, estimate, interval

__all__ = ["LEVEL", "MIN_CLUSTERS", "Estimate", "estimate", "interval"]
