"""Write edgerecover/models/name/torchvision_fingerprints.json from the installed torchvision.

Run it when torchvision adds networks: `python scripts/fingerprint_torchvision.py`. Takes 10 s, downloads nothing.
"""

import json
from pathlib import Path

import edgerecover.models.name
from edgerecover.models.name.libraries import torchvision_names
from edgerecover.models.name.recognise import AUXILIARY_PREFIXES, fingerprint, shapes_of, skeleton

TABLE = Path(edgerecover.models.name.__file__).with_name("torchvision_fingerprints.json")


def head_and_fingerprint(name: str) -> tuple[tuple[str, ...], int, str]:
    """Keys of the classifying layer, weight first; rows of it for each class; digest without the number of classes."""
    shapes = shapes_of(name, num_classes=1000)
    others = shapes_of(name, num_classes=7)
    changed = [key for key in shapes if shapes[key] != others[key]]
    head = tuple(key for key in changed if not key.startswith(AUXILIARY_PREFIXES))
    return head, shapes[head[0]][0] // 1000, fingerprint(shapes, head)


def table_of(names: list[str]) -> list[dict[str, object]]:
    families: dict[tuple[tuple[str, ...], int], dict[str, str]] = {}
    for name in names:
        head, rows_per_class, sha256 = head_and_fingerprint(name)
        families.setdefault((head, rows_per_class), {})[name] = sha256
    digests = [sha256 for family in families.values() for sha256 in family.values()]
    if len(set(digests)) != len(digests):
        raise SystemExit("two architectures have the same keys and shapes")
    return [
        {
            "head": list(head),
            "rows_per_class": rows_per_class,
            "architectures": family,
            "skeletons": {name: skeleton(shapes_of(name, num_classes=1000)) for name in family},
        }
        for (head, rows_per_class), family in sorted(families.items())
    ]


if __name__ == "__main__":
    table = table_of(torchvision_names())
    TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    print(f"{sum(len(family['architectures']) for family in table)} architectures written")
