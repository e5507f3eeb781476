"""Objects that older revisions of this repository have written, as they were recorded by `python -m hack.past`."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from zerotrust.cli.manifests import Loader
from zerotrust.common import times

FOLDER = Path(__file__).with_name("recorded")


@dataclass(frozen=True)
class Recording:
    """One revision's CRDs and objects."""

    folder: Path

    def __str__(self) -> str:
        return self.folder.name

    @cached_property
    def objects(self) -> list[dict[str, Any]]:
        """Namespaces first, then what owns before what is owned."""
        return list(yaml.load_all((self.folder / "objects.yaml").read_text(), Loader=Loader))

    @property
    def crds(self) -> str:
        return (self.folder / "crds.yaml").read_text()

    @property
    def moment(self) -> datetime:
        """A minute after the last thing that it tells of."""
        told = re.findall(
            r"(?:lastTransitionTime|creationTimestamp): '?\"?(\d{4}-\S+?Z)", (self.folder / "objects.yaml").read_text()
        )
        return max(map(times.parse, told)) + timedelta(minutes=1)

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        return [one for one in self.objects if one["kind"] in kinds]


RECORDINGS = [Recording(folder) for folder in sorted(FOLDER.iterdir()) if folder.is_dir()]
