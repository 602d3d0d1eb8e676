import pytest

from sac_kernel.prices.ingest.writer import write_processed
from tests.conftest import make_data


@pytest.fixture(scope="session")
def h5(tmp_path_factory):
    """A processed file of 1,600 hours, for all tests of runs; not to be changed."""
    path = tmp_path_factory.mktemp("data") / "processed_data.h5"
    write_processed(make_data(1600), path)
    return path
