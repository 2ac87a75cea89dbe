"""A page as its tags, to see what is on it."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "path", "use", "rect", "line", "image", "input", "img"}


class Page(HTMLParser):
    """Collects text, links, ids and every tag with its attributes, and fails on tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.ids, self.links, self.tags = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
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

    def wrongs(self):
        """What a screen reader would miss: names of pictures, scopes, captions, a language, headings in order."""
        found = [] if dict(self.tags).get("html", {}).get("lang") else ["no language"]
        level = 0
        for tag, attrs in self.tags:
            if tag == "img" and "alt" not in attrs:
                found.append("img without alt")
            if tag == "svg" and not (attrs.get("aria-label") or attrs.get("aria-hidden") == "true"):
                found.append("svg without a name")
            if tag == "th" and "scope" not in attrs:
                found.append("th without scope")
            if tag in ("h1", "h2", "h3", "h4"):
                if int(tag[1]) > level + 1:
                    found.append(f"{tag} after h{level}")
                level = int(tag[1])
        names = [tag for tag, _ in self.tags]
        found += ["table without caption"] * (names.count("table") - names.count("caption"))
        return found
