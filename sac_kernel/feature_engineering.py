"""The features under the name that the manual guide's users import."""

from sac_kernel.features.pipeline import FeaturePipeline

__all__ = ["FeaturePipeline"]
