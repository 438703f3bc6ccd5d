import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from world import World, contoso


@pytest.fixture(scope="package")
def world():
    world = World(contoso())
    yield world
    world.close()
