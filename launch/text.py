# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""YAML as a person reads it: keys in the order given, long texts as blocks."""

from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """No aliases: pools that are equal are written out."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def to_yaml(tree: Any) -> str:
    """A document that `yaml.safe_load` reads back as it was."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, width=100)
