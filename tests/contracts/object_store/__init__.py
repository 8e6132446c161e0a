"""What every object store must do. A backend's test subclasses `ObjectStoreContract` and gives it a `store`; nothing
else is needed. What a backend cannot do it declares in the attributes of `Backend`, and shows in a test of its own."""

from tests.contracts.object_store.backend import LEGAL_KEYS
from tests.contracts.object_store.bodies import Bodies
from tests.contracts.object_store.creation import Creation
from tests.contracts.object_store.keys import Keys
from tests.contracts.object_store.listing import Listing
from tests.contracts.object_store.spans import Spans
from tests.contracts.object_store.upkeep import Upkeep
from tests.contracts.object_store.use import MIB, Zeros, fill, keys, read, sha256

__all__ = ["LEGAL_KEYS", "MIB", "ObjectStoreContract", "Zeros", "fill", "keys", "read", "sha256"]


class ObjectStoreContract(Bodies, Spans, Keys, Listing, Creation, Upkeep):
    pass
