import pytest
from rings import TWINS, Twin


@pytest.fixture(params=TWINS, ids=lambda twin: twin.name)
def twin(request: pytest.FixtureRequest) -> Twin:
    """Each implementation of the ring in turn. Without the extension the tests cannot be collected: no skip."""
    return request.param
