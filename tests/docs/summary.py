"""How much of the documentation is run, and how much is only checked."""

from collections import Counter
from dataclasses import dataclass

from tests.docs.blocks import blocks
from tests.docs.commands import commands
from tests.docs.exceptions import FOREIGN


@dataclass(frozen=True)
class Summary:
    """Numbers of commands by treatment, and of YAML blocks."""

    commands: Counter[str]
    yaml: Counter[str]

    def __str__(self) -> str:
        told = [f"{sum(self.yaml.values())} YAML blocks: {_listed(self.yaml)}"]
        return "; ".join([*told, f"{sum(self.commands.values())} commands: {_listed(self.commands)}"])


def summary() -> Summary:
    yaml: Counter[str] = Counter()
    for block in blocks("yaml"):
        kinds = {one.get("kind") for one in block.documents() if isinstance(one, dict)}
        yaml["parsed only" if block.is_fragment or kinds & FOREIGN.keys() else "applied to an API server"] += 1
    return Summary(Counter(one.treatment for one in commands()), yaml)


def _listed(counted: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counted.most_common())


if __name__ == "__main__":
    print(f"documentation: {summary()}")
