"""Label and field selectors."""

import pytest

from vanadium_node.local.api.errors import ApiError
from vanadium_node.local.api.kinds import CONFIG_MAP, POD
from vanadium_node.local.api.selectors import FieldSelector, LabelSelector, check_fields

LABELS = {"app": "web", "tier": "front", "example.com/size": "10", "empty": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web,tier = front", True),
        ("app!=web", False),
        ("missing!=x", True),
        ("app in (web, db)", True),
        ("app notin (web,db),tier", False),
        ("missing notin (x)", True),
        ("tier", True),
        ("missing", False),
        ("!missing", True),
        ("!tier", False),
        ("example.com/size>5", True),
        ("example.com/size<5", False),
        ("app>5", False),
        ("empty=", True),
        ("empty", True),
    ],
)
def test_label_selectors(text: str, matches: bool) -> None:
    """Equality, sets, presence and comparison, joined by commas."""
    assert LabelSelector.parse(text).matches(LABELS) is matches


@pytest.mark.parametrize("text", ["app=", "a=b=c", "=x", "a in b", "a in (b", ",", "a,,b", "-a", "a b"])
def test_what_is_no_label_selector_is_refused(text: str) -> None:
    """With a sentence that quotes it; `app=` is one, for the empty value."""
    if text == "app=":
        assert not LabelSelector.parse(text).matches(LABELS)
        return
    with pytest.raises(ApiError, match="unable to parse requirement") as refusal:
        LabelSelector.parse(text)
    assert refusal.value.status == 400


def test_selectors_of_objects() -> None:
    """matchLabels and matchExpressions; none matches nothing, an empty one everything."""
    selector = {
        "matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "tier", "operator": "In", "values": ["front", "back"]}],
    }
    assert LabelSelector.from_object(selector).matches(LABELS)
    assert str(LabelSelector.from_object(selector)) == "app=web,tier in (back,front)"
    assert LabelSelector.from_object({}).matches(LABELS)
    assert not LabelSelector.from_object(None).matches(LABELS)


def test_field_selectors() -> None:
    """Equal and not equal; a field that is not there is empty."""
    pod = {"metadata": {"name": "web", "namespace": "default"}, "status": {"phase": "Running"}, "spec": {}}
    assert FieldSelector.parse("metadata.name=web,status.phase!=Pending").matches_object(pod)
    assert FieldSelector.parse("spec.nodeName=").matches_object(pod)
    assert not FieldSelector.parse("status.phase==Pending").matches_object(pod)
    with pytest.raises(ApiError, match="invalid field selector"):
        FieldSelector.parse("nonsense")


def test_only_known_fields_select() -> None:
    """As on a real cluster, each kind has its own."""
    check_fields(POD, FieldSelector.parse("spec.nodeName=here"))
    with pytest.raises(ApiError, match=r"field label not supported: spec\.nodeName"):
        check_fields(CONFIG_MAP, FieldSelector.parse("spec.nodeName=here"))
