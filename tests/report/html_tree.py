"""Elements of an HTML page with their attributes and text, for tests of its structure."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "img", "input", "br", "link"}


@dataclass
class Element:
    """One element.

    Attributes:
        tag: Name. attributes: By name; one without a value is an empty text.
        parent: Enclosing element. content: Text and elements inside, in order.
    """

    tag: str
    attributes: dict[str, str]
    parent: Element | None = None
    content: list[str | Element] = field(default_factory=list)

    @property
    def children(self) -> list[Element]:
        """Elements directly inside."""
        return [one for one in self.content if isinstance(one, Element)]

    def all(self, *tags: str) -> list[Element]:
        """Returns the elements inside, at any depth, of the given tags; all without tags."""
        found = []
        for child in self.children:
            found += [child] * (not tags or child.tag in tags) + child.all(*tags)
        return found

    def of_class(self, name: str) -> list[Element]:
        """Returns the elements inside that have the class."""
        return [one for one in self.all() if name in one.attributes.get("class", "").split()]

    @property
    def text(self) -> str:
        """All text inside."""
        return "".join(one.text if isinstance(one, Element) else one for one in self.content)

    @property
    def ancestors(self) -> list[Element]:
        """Enclosing elements from the inside out."""
        return [] if self.parent is None else [self.parent, *self.parent.ancestors]

    @property
    def name(self) -> str:
        """Accessible name: a label, the alternative text, the text inside, or an enclosing label."""
        own = self.attributes.get("aria-label") or self.attributes.get("alt") or self.text.strip()
        labels = [one.text.strip() for one in self.ancestors if one.tag == "label"]
        return own or "".join(labels)


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = self.open = Element("document", {})

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs}, self.open)
        self.open.content.append(element)
        if tag not in VOID:
            self.open = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.content.append(Element(tag, {name: value or "" for name, value in attrs}, self.open))

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open.tag, f"</{tag}> closes <{self.open.tag}>"
        assert self.open.parent is not None
        self.open = self.open.parent

    def handle_data(self, data: str) -> None:
        if self.open.tag not in ("script", "style"):
            self.open.content.append(data)


def parse(page: str) -> Element:
    """Returns the tree of a page; every element must be closed in order."""
    parser = _Parser()
    parser.feed(page)
    parser.close()
    assert parser.open is parser.root, f"<{parser.open.tag}> is not closed"
    return parser.root
