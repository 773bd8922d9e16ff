"""The images of an HTML text."""

from html.parser import HTMLParser


def images(text):
    """The attributes of each image, by name."""
    parser = _Images()
    parser.feed(text)
    return parser.found


class _Images(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.found.append(dict(attributes))
