"""Ways through an open page that tests of both models take."""

GO = """(address) => new Promise((done) => {
    addEventListener("hashchange", () => setTimeout(done), {once: true});
    location.hash = address + "&at=" + performance.now();
})"""
"""What leads the page to an address, and waits until it has drawn: addresses that are alike would make no event."""


def go(page, **place):
    """Lead the page to a place: token, layer, head, box."""
    address = "&".join(f"{name}={value}" for name, value in place.items())
    page.run(f"({GO})({address!r})")


def shares_shown(page, inside):
    """(first token, last token, share, text) of the rows of a list; None for the sink."""
    return page.run(
        f"Array.from(document.querySelectorAll('#{inside} li'), (row) => "
        "[row.dataset.first ?? null, row.dataset.last ?? null, Number(row.dataset.share), row.innerText])"
    )


def problems(page, tokens):
    """Boxes × tokens: where a number is missing or a picture is without words, and whether all boxes come round."""
    return page.run(
        """(async () => {
            const found = [];
            const total = Number(document.querySelector("#step").textContent.split(" of ")[1]);
            for (const token of TOKENS) {
                await (GO)(`token=${token}&layer=0&box=embedding&head=-1`);
                for (let step = 0; step < total; step++) {
                    const text = document.body.innerText + document.body.innerHTML.replace(/<script[^]*/, "");
                    const bad = /NaN|undefined|\\[object|Infinity|null/.exec(text);
                    if (bad) found.push([location.hash, bad[0], text.slice(bad.index - 60, bad.index + 20)]);
                    const mute = Array.from(document.querySelectorAll('[role="img"]')).find((one) => !one.ariaLabel);
                    if (mute) found.push([location.hash, "no text alternative", mute.outerHTML.slice(0, 80)]);
                    document.querySelector("#next").click();
                }
                if (!location.hash.includes("box=embedding")) found.push([location.hash, "not come round"]);
            }
            return found;
        })()""".replace("GO", GO).replace("TOKENS", str(list(tokens)))
    )
