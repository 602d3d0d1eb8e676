"""The data pipeline under the name that the manual guide's users import."""

from sac_kernel.prices.pipeline import DataConfig, DataPipeline
from sac_kernel.prices.processed_file import read_processed

__all__ = ["DataConfig", "DataPipeline", "read_processed"]
