"""Which function syncs which type of record."""

import pytest

from trunkline.errors import NotFound, UsageError
from trunkline.jobs import Handlers


def sync_meter(record: object, job: object) -> None:
    """A handler."""


def sync_order(record: object, job: object) -> None:
    """Another one."""


def test_a_registered_handler_is_found_and_stays_what_it_was() -> None:
    handlers = Handlers()
    assert handlers.sync("meter")(sync_meter) is sync_meter
    handlers.sync("order")(sync_order)
    assert handlers.find("meter") is sync_meter
    assert handlers.find("order") is sync_order
    assert handlers.types == ["meter", "order"]


def test_an_unknown_type_is_answered_with_those_there_are_and_what_to_write() -> None:
    handlers = Handlers()
    handlers.sync("order")(sync_order)
    handlers.sync("meter")(sync_meter)
    with pytest.raises(NotFound) as caught:
        handlers.find("metre")
    line = str(caught.value)
    assert 'record type "metre" has no sync handler (there are meter, order)' in line
    assert '@trunkline.sync("metre")' in line
    assert '"modules"' in line


def test_without_any_handler_it_is_said_so() -> None:
    with pytest.raises(NotFound, match="no handler is registered"):
        Handlers().find("meter")


def test_two_handlers_for_one_type_are_refused_and_the_first_stays() -> None:
    handlers = Handlers()
    handlers.sync("meter")(sync_meter)
    with pytest.raises(UsageError, match=r'record type "meter" has a handler already: .*test_handlers\.sync_meter'):
        handlers.sync("meter")(sync_order)
    assert handlers.find("meter") is sync_meter


def test_a_module_that_is_loaded_again_replaces_its_own_handler() -> None:
    def load() -> object:
        def sync_tracker(record: object, job: object) -> None:
            """Made anew each time the module is loaded."""

        return handlers.sync("tracker")(sync_tracker)

    handlers = Handlers()
    first, second = load(), load()
    assert first is not second
    assert handlers.find("tracker") is second


def test_one_function_may_sync_several_types() -> None:
    handlers = Handlers()
    handlers.sync("meter")(handlers.sync("order")(sync_meter))
    assert handlers.find("meter") is handlers.find("order") is sync_meter
