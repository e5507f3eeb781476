"""What a directory says of identities."""

import pytest

from zerotrust.common import naming
from zerotrust.policy.directory import Identity, Workload, default_selector
from zerotrust.policy.podset import Requirement, Selector, equal


@pytest.mark.parametrize(
    ("pods", "labelled"),
    [
        (default_selector("orders"), True),
        ((Requirement(naming.SERVICE_ACCOUNT, "NotIn", ("orders",)),), False),
        ((Requirement(naming.SERVICE_ACCOUNT, "Exists"),), False),
        ((equal(naming.SERVICE_ACCOUNT, "batch", "orders"),), False),
        ((*default_selector("orders"), equal("app", "orders")), False),
        ((equal("app", "orders"),), False),
    ],
    ids=["derived", "not", "any", "several", "more", "other"],
)
def test_only_one_value_of_the_derived_label_is_the_derived_label(pods: Selector, labelled: bool) -> None:
    assert Identity(Workload("shop", "orders"), {}, pods).is_labelled is labelled
