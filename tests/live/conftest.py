import pytest

from sac_kernel.prices.pipeline import DataPipeline


@pytest.fixture(scope="session")
def sample():
    """The processed bars of the embedded sample; not to be changed."""
    return DataPipeline().build()
