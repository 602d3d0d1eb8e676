"""What many tests share: how they look at a message, and the features of bars."""

import re

from sac_kernel.features.pipeline import FeaturePipeline


def _pattern(fragment):
    text = str(fragment)
    before = r"(?<!\d)(?<!\d[.,])" if text[:1].isdigit() else ""
    after = r"(?![.,]?\d)" if text[-1:].isdigit() else ""
    return f"(?=.*{before}{re.escape(text)}{after})"


def says(*fragments):
    """Return a pattern for `match=` that finds all fragments in any order, whatever the case.

    Fragments are what a reader needs: a parameter, a file, a number found; prose is left free. A number is found as
    a whole: 3 is not in 13, 3.5 or 3,000.
    """
    assert fragments, "a pattern of nothing would find everything"
    return "(?is)^" + "".join(map(_pattern, fragments))


def told(text, *fragments):
    """Say whether a text has all fragments, as `says` finds them."""
    return re.search(says(*fragments), str(text)) is not None


def compute_features(bars, bar_seconds, instrument, others=None):
    """Return the unscaled features of bars of a stated length, however few they are."""
    pipeline = FeaturePipeline(instrument)
    pipeline.bar_seconds = bar_seconds
    return pipeline.compute({**(others or {}), instrument: bars})
