"""`zerotrust graph`: documents that are the same for the same manifests, and whole whatever stands in them."""

import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from zerotrust.cli.layout import arrange
from zerotrust.cli.main import zerotrust

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = Path(__file__).parent / "golden"
SHOP = str(ROOT / "examples" / "shop")
FORMATS = ("dot", "mermaid", "svg")
SVG = "{http://www.w3.org/2000/svg}"
UGLY = "<a>\"&'`\\#|]]>--\x1b\u202e\ud800\n"


def graph(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner(env={"NO_COLOR": "1"}).invoke(zerotrust, ["graph", *arguments], input=stdin)


def identity(name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop"}
    return {"apiVersion": "zerotrust.dev/v1alpha1", "kind": "ServiceIdentity", "metadata": metadata, "spec": spec}


def policy(server: str, *peers: dict[str, Any], effect: str = "Allow", **spec: Any) -> dict[str, Any]:
    rules = [{"name": "r", "effect": effect, "from": list(peers), "to": [{"port": 8443}]}]
    return {
        "apiVersion": "zerotrust.dev/v1alpha1",
        "kind": "TrustPolicy",
        "metadata": {"name": f"{server}-{effect.lower()}", "namespace": "shop"},
        "spec": {"target": {"identities": [server]}, "rules": rules, **spec},
    }


def workload(name: str, **more: Any) -> dict[str, Any]:
    return {"workload": {"name": name, "namespace": "shop"}, **more}


def drawn(output: str, *bodies: dict[str, Any]) -> str:
    result = graph("-f", "-", "-o", output, stdin=yaml.safe_dump_all(bodies))
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


@pytest.mark.parametrize("output", FORMATS)
def test_golden(output: str) -> None:
    result = graph("-f", SHOP, "-o", output)
    file = GOLDEN / f"graph-shop.{output}"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(result.output)
    assert result.output == file.read_text()
    assert result.exit_code == 0


@pytest.mark.parametrize("output", FORMATS)
def test_the_order_of_files_changes_nothing(tmp_path: Path, output: str) -> None:
    bodies = [body for file in sorted(Path(SHOP).glob("*.yaml")) for body in yaml.safe_load_all(file.read_text())]
    Random(4).shuffle(bodies)
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(bodies))
    assert graph("-f", str(tmp_path), "-o", output).output == graph("-f", SHOP, "-o", output).output


def test_dot_is_the_default() -> None:
    assert graph("-f", SHOP).stdout.startswith("digraph calls {")


def test_the_svg_is_whole() -> None:
    root = ElementTree.fromstring(graph("-f", SHOP, "-o", "svg").stdout)
    texts = ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]
    assert {"gateway", "frontend", "orders", "payments", "inventory", "batch", "any workload"} <= set(texts)
    arrows = [element.attrib["class"] for group in root.iter(f"{SVG}g") for element in group.iter(f"{SVG}path")]
    assert arrows.count("arrow deny") == 3
    assert arrows.count("arrow allow") == 15
    assert not [element for element in root.iter() if element.tag not in {
        f"{SVG}{name}" for name in ("svg", "title", "style", "defs", "marker", "path", "rect", "g", "text")
    }]  # fmt: skip


def test_boxes_stand_apart_and_inside_the_sheet() -> None:
    root = ElementTree.fromstring(graph("-f", SHOP, "-o", "svg").stdout)
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    sides = ("x", "y", "width", "height")
    boxes = [tuple(float(one.attrib[side]) for side in sides) for one in root.iter(f"{SVG}rect") if "x" in one.attrib]
    for x, y, wide, high in boxes:
        assert 0 <= x <= x + wide <= width
        assert 0 <= y <= y + high <= height
    for number, (x, y, wide, high) in enumerate(boxes):
        for left, top, across, down in boxes[number + 1 :]:
            assert x + wide < left or left + across < x or y + high < top or top + down < y


def test_a_deny_is_marked() -> None:
    bodies = (identity("a"), identity("b"), policy("b", workload("a")), policy("b", workload("a"), effect="Deny"))
    assert 'n0 -> n1 [label="must not call:\\n8443/TCP", color="#b00020"' in drawn("dot", *bodies)
    assert 'n0 --x|"must not call:<br/>8443/TCP"| n1' in drawn("mermaid", *bodies)
    assert 'class="arrow deny"' in drawn("svg", *bodies)


def test_an_arrow_that_the_client_s_egress_stops() -> None:
    client = identity("a", egress={"mode": "Isolated"})
    client["metadata"]["namespace"] = "web"
    peer = {"workload": {"name": "a", "namespace": "web"}}
    bodies = (client, identity("b"), policy("b", peer))
    assert "its own egress is closed:" in drawn("dot", *bodies)
    assert "-.->" in drawn("mermaid", *bodies)
    assert '<path class="arrow refused" d="M' in drawn("svg", *bodies)


def test_candidates_are_left_out() -> None:
    text = drawn("dot", identity("a"), identity("b"), policy("b", workload("a"), mode="Observe"))
    assert "->" not in text
    assert '[label="a"]' in text


@pytest.mark.parametrize("output", FORMATS)
def test_cycles_and_calls_to_oneself(output: str) -> None:
    names = ("a", "b", "c")
    bodies = [identity(name) for name in names]
    bodies += [policy(name, *(workload(other) for other in names)) for name in names]
    text = drawn(output, *bodies)
    assert text.count({"dot": "->", "mermaid": "-->", "svg": 'class="arrow allow" d="M'}[output]) >= 9


@pytest.mark.parametrize("output", FORMATS)
def test_nothing_breaks_out_of_the_document(output: str) -> None:
    user = {"provider": "corp", "audiences": [UGLY[:-2]], "claims": {UGLY[:5]: [UGLY[:12]]}}
    provider = {"name": "corp", "issuer": "https://x", "algorithms": ["ES256"], "jwksURI": "https://x/k"}
    domain = {
        "apiVersion": "zerotrust.dev/v1alpha1",
        "kind": "TrustDomain",
        "metadata": {"name": "x"},
        "spec": {"default": True, "identityProviders": [provider]},
    }
    user["audiences"] = [UGLY.replace("\ud800", "")]
    text = drawn(output, domain, identity("a"), identity("b"), policy("b", workload("a", user=user)))
    assert "\x1b" not in text
    assert "\u202e" not in text
    if output == "svg":
        titles = [element.text or "" for element in ElementTree.fromstring(text).iter(f"{SVG}title")]
        assert any('token of corp for <a>"&\'`\\#|]]>--\\x1b\\u202e\\n, <a>"& ' in title for title in titles)
    if output == "dot":
        (label,) = re.findall(r'n0 -> n1 \[label=("(?:[^"\\\n]|\\.)*")\];', text)
        assert '\\"' in label
    if output == "mermaid":
        (label,) = re.findall(r'n0 -->\|"([^"]*)"\| n1\n', text)
        assert "<a>" not in label
        assert "`" not in label


def test_hostile_names_of_peers() -> None:
    selector = {"matchExpressions": [
        {"key": "a", "operator": "In", "values": ["b", "c"]}, {"key": "d", "operator": "NotIn", "values": ["e"]},
        {"key": "f", "operator": "Exists"}, {"key": "g", "operator": "DoesNotExist"},
    ]}  # fmt: skip
    text = drawn("dot", identity("b"), policy("b", {"pods": {"namespaceSelector": selector}}, {"cidr": "10.0.0.0/8"}))
    assert '"pods in namespaces with a in (b,c),d notin (e),f,!g"' in text
    assert '"10.0.0.0/8"' in text


def test_what_is_not_accepted_is_told_and_the_rest_is_drawn() -> None:
    bodies = [identity("a"), identity("b"), policy("b", workload("a")), policy("a", workload("ghost"))]
    result = graph("-f", "-", stdin=yaml.safe_dump_all(bodies))
    assert result.exit_code == 2
    assert "n0 -> n1" in result.stdout
    assert "TrustPolicy shop/a-allow: spec.rules[0].from[0].workload: ServiceIdentity shop/ghost" in result.stderr


def test_nothing_to_draw() -> None:
    result = graph("-f", "-", stdin="")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", "Error: there is no ServiceIdentity to draw\n")


def test_more_arrows_than_anybody_can_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zerotrust.cli.graph.MAX_ARROWS", 17)
    result = graph("-f", SHOP, "-o", "svg")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: 18 arrows are too many for a picture; write -o dot")
    assert graph("-f", SHOP, "-o", "dot").exit_code == 0


def test_an_unknown_format() -> None:
    assert graph("-f", SHOP, "-o", "png").exit_code == 2


# The layout


def random_arrows(seed: int) -> tuple[list[int], list[tuple[int, int]]]:
    dice = Random(seed)
    boxes = list(range(dice.randrange(1, 12)))
    return boxes, [(dice.choice(boxes), dice.choice(boxes)) for _ in range(dice.randrange(30))]


@pytest.mark.parametrize("seed", range(50))
def test_every_box_has_one_place_and_every_arrow_a_way(seed: int) -> None:
    boxes, arrows = random_arrows(seed)
    layout = arrange(boxes, arrows)
    placed = [one for layer in layout.layers for one in layer]
    assert sorted(one for one in placed if isinstance(one, int)) == boxes
    assert len(set(placed)) == len(placed)
    layer_of = {one: number for number, layer in enumerate(layout.layers) for one in layer}
    for client, server in arrows:
        if client != server:
            way = layout.ways[client, server]
            assert (way[0], way[-1]) == (client, server)
            steps = {layer_of[way[n + 1]] - layer_of[way[n]] for n in range(len(way) - 1)}
            assert steps in ({1}, {-1})


def test_a_chain_is_as_long_as_it_is() -> None:
    boxes = list(range(3000))
    layout = arrange(boxes, [(one, one + 1) for one in boxes[:-1]])
    assert [len(layer) for layer in layout.layers] == [1] * 3000
