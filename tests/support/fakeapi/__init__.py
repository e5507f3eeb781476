"""A strict in-process fake of kube-apiserver: for faults that the real one cannot be told to have, and for speed.

What it claims to do as the real server does is checked against that by tests/contract/test_same_behaviour.py; what it
does not implement it refuses (mostly with 501) instead of guessing. Left out on purpose: schemas, defaults and CEL rules
of custom resources, authentication and RBAC, admission policies, managedFields, every patch but merge patches, dry runs,
deletion of collections, tables and WatchList. Nothing is created in a new namespace by itself.
"""

from .faults import (
    MUTATING,
    Action,
    CloseBefore,
    Delay,
    Exchange,
    Faults,
    Halt,
    Hang,
    LoseAnswer,
    Respond,
    Rule,
    StreamError,
)
from .refusals import Refused
from .resources import CONTROLLER_REVISIONS, NETWORK_POLICIES, ResourceType, definition_of
from .server import FakeApi

__all__ = [
    "CONTROLLER_REVISIONS",
    "MUTATING",
    "NETWORK_POLICIES",
    "Action",
    "CloseBefore",
    "Delay",
    "Exchange",
    "FakeApi",
    "Faults",
    "Halt",
    "Hang",
    "LoseAnswer",
    "Refused",
    "ResourceType",
    "Respond",
    "Rule",
    "StreamError",
    "definition_of",
]
