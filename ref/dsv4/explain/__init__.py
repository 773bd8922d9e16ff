"""One forward pass as a page to look into: every token, layer and head of a text that the reader chose.

    from dsv4.explain import record, write_page

    model, tokenizer = dsv4.load(), dsv4.Tokenizer.from_file(dsv4.bundled_model())
    write_page("explain.html", model, tokenizer, record(model, tokenizer.encode("To be, or not to be")))

`record` runs the pass and keeps what it observes, `page_data` says what of it a page holds, and in how many bits, and
`write_page` writes one HTML file that needs no network. The command is `dsv4 explain TEXT`; docs/explain.md says how to
read the page.
"""

from dsv4.explain.data import page_data
from dsv4.explain.page import write_page
from dsv4.explain.record import Record, record

__all__ = ["Record", "page_data", "record", "write_page"]
