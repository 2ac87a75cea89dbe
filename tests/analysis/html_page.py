"""A page as its tags, to see what is on it."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "path", "use", "rect", "line", "image"}


class Page(HTMLParser):
    """Collects text, links and ids, and fails on tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.ids, self.links = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs[name] for name in ("href", "src", "xlink:href") if name in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
