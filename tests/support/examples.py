"""How many examples a property tries."""

from hypothesis import settings

USUAL = 100


def examples(number: int) -> settings:
    """As many as the property can afford; `make prove`, whose profile asks for more than usual, multiplies them."""
    return settings(max_examples=max(1, number * settings.default.max_examples // USUAL))
