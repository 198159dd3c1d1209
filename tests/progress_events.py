"""The events of `--progress json`, held against their published schema."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema

_SCHEMA = Path(__file__).parents[1] / "docs" / "reference" / "progress-events.schema.json"
_VALIDATOR = jsonschema.Draft202012Validator(json.loads(_SCHEMA.read_text()))


def events_of(text):
    """Every line of *text* is an event of the schema, or the test fails."""
    events = [json.loads(line) for line in text.splitlines()]
    for event in events:
        _VALIDATOR.validate(event)
    return events


def of_kind(events, kind):
    return [event for event in events if event["event"] == kind]
