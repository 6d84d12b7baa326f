"""The search page in Chromium: picture, box, words, filter, mix, two searches, thumbs, errors, phone width."""

import base64
import json
import time
import urllib.parse

import pytest

import chromium
from retrieval_jax.attributes import overrules
from retrieval_jax.server import judgements
from search_page import SETTLED, TITLES, act, service


@pytest.fixture(scope="module")
def address(finished):
    """The address of the service."""
    with service(finished) as made:
        yield made


@pytest.fixture(scope="module")
def page(address, tmp_path_factory):
    with chromium.page(tmp_path_factory.mktemp("profile")) as made:
        made.size(1280)
        made.open(address)
        made.wait(f"document.querySelectorAll('.hit').length === 20 && {SETTLED}")
        yield made


def test_words_filter_picture_box_and_mix(page, photo, tmp_path):
    titles = page.run(TITLES)
    assert len(titles) == 20 and page.run("document.querySelectorAll('.hit img').length") == 20
    act(page, f"words.value = {json.dumps(titles[4])}; form.requestSubmit()")
    assert page.run(TITLES)[0] == titles[4] and "BM25" in page.run("$('status').textContent")
    assert "words=" in page.run("location.hash")

    act(page, "words.value = ''; form.requestSubmit()")
    box = "document.querySelector('#facets input[type=checkbox]')"
    count = int(page.run(f"{box}.parentElement.querySelector('.count').textContent"))
    act(page, f"{box}.click()")
    assert len(page.run(TITLES)) == count and page.run("document.querySelectorAll('#active .chip').length") == 1
    page.wait(f"{box}.checked")
    address = page.run("location.href")
    act(page, "document.querySelector('#active .chip button').click()")
    assert len(page.run(TITLES)) == 20

    (tmp_path / "photo.png").write_bytes(photo)
    page.run("$('results').ariaBusy = 'true'")
    page.choose("#file", tmp_path / "photo.png")
    page.wait(SETTLED)
    by_picture = page.run(TITLES)
    assert "cosine" in page.run("$('status').textContent") and by_picture != titles
    page.wait("document.querySelectorAll('#predicted button').length > 0")
    act(page, "boxed.click()")
    shown = "getComputedStyle($('box')).top"
    before = page.run(shown)
    act(page, "for (let n = 0; n < 5; n++) $('box').dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'ArrowDown'}))")  # fmt: skip
    assert page.run(shown) != before
    act(page, f"words.value = {json.dumps(titles[4])}; form.requestSubmit()")
    assert "fusion" in page.run("$('status').textContent")
    why = page.run("document.querySelector('.hit .why').textContent")
    assert "picture:" in why and "words:" in why and "% of the score" in why
    assert "-F picture=@picture.jpg --form-string request=" in page.run("curl()")
    act(page, "clear.click()")
    page.open("about:blank")
    page.open(address)  # which somebody has shared
    page.wait(f"document.querySelectorAll('.hit').length === {count}")


def test_two_stages_side_by_side_more_like_this_and_thumbs(page, address, finished):
    page.open(address + "#")
    page.wait(f"document.querySelectorAll('.hit').length === 20 && {SETTLED}")
    act(page, "document.querySelector('[data-act=like]').click()")
    assert len(page.run(TITLES)) == 19 and "more like" in page.run("active.textContent")
    act(page, "run_b.value = 'tiny'; run_b.dispatchEvent(new Event('change'))")
    page.wait("document.querySelectorAll('#stage_b option').length === 3")
    act(page, "stage_b.value = 'cosine'; stage_b.dispatchEvent(new Event('change'))")
    assert page.run("document.querySelectorAll('#results .list').length") == 2
    assert "place there" in page.run("$('results').textContent")
    assert "share 19" in page.run("$('status').textContent")
    line = page.wait("$('verdict').textContent.includes('points') && $('verdict').textContent")
    assert line.startswith("tiny, reranking against tiny, cosine: mar@10_capped ") and "(8 queries)" in line
    page.run("document.querySelector('[data-act=wrong]').click()")
    page.wait("document.querySelector('[data-act=wrong]').getAttribute('aria-pressed') === 'true'")
    last = json.loads((finished / judgements.FILE).read_text().splitlines()[-1])
    assert last["action_name"] == "wrong" and last["event_attributes"]["position"] == {"ordinal": 1}
    page.run("document.querySelector('[data-act=up]').click()")
    page.wait("document.querySelector('[data-act=up]').getAttribute('aria-pressed') === 'true'")
    assert (finished / judgements.FILE).read_text().count('"click"') >= 1


def centre(page, element):
    """Returns where an element is in the window, after scrolling it into view."""
    page.run(f"{element}.scrollIntoView({{block: 'center'}})")
    edge = page.run(f"{element}.getBoundingClientRect().toJSON()")
    return {"x": edge["x"] + edge["width"] / 2, "y": edge["y"] + edge["height"] / 2}


def drag(page, element, to, kind="mouse"):
    """Drags an element by a number of pixels, with a mouse or a finger."""
    at = centre(page, element)
    end = {"x": at["x"] + to[0], "y": at["y"] + to[1]}
    for name, finger, place in (("Pressed", "Start", at), ("Moved", "Move", end), ("Released", "End", end)):
        if kind == "mouse":
            button = {"button": "left", "buttons": 1, "clickCount": 1}
            page.send("Input.dispatchMouseEvent", type=f"mouse{name}", **place, **button)
        else:
            points = [] if finger == "End" else [place]
            page.send("Input.dispatchTouchEvent", type=f"touch{finger}", touchPoints=points)


def test_pictures_are_dropped_pasted_and_photographed_and_a_box_is_dragged(page, address, photo, tmp_path):
    page.open(address + "#")
    page.wait(f"document.querySelectorAll('.hit').length === 20 && {SETTLED}")
    (tmp_path / "photo.png").write_bytes(photo)
    page.run("$('results').ariaBusy = 'true'")
    at, data = centre(page, "$('drop')"), {"items": [], "files": [str(tmp_path / "photo.png")], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver"):
        page.send("Input.dispatchDragEvent", type=kind, **at, data=data)
    assert page.run("drop.classList.contains('over')")
    page.send("Input.dispatchDragEvent", type="drop", **at, data=data)
    page.wait(f"!$('chosen').hidden && {SETTLED}")
    dropped = page.run(TITLES)
    assert "cosine" in page.run("$('status').textContent") and not page.run("drop.classList.contains('over')")

    act(page, "$('remove').click()")
    bytes_of = f"Uint8Array.from(atob('{base64.b64encode(photo).decode()}'), one => one.charCodeAt(0))"
    act(page, f"var held = new DataTransfer(); held.items.add(new File([{bytes_of}], 'x.png', {{type: 'image/png'}})); "
        "document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: held}))")  # fmt: skip
    assert page.run(TITLES) == dropped
    page.run("var text = new DataTransfer(); text.setData('text/plain', 'red'); "
             "document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: text}))")  # fmt: skip
    assert not page.run("$('chosen').hidden") and page.run("$('error').hidden")  # text goes where it was pasted

    act(page, "$('remove').click()")
    page.run("$('results').ariaBusy = 'true'")
    page.choose("#photo", tmp_path / "photo.png")
    page.wait(SETTLED)
    assert page.run(TITLES) == dropped

    act(page, "boxed.click()")
    before = page.run("box")
    for kind, pixels in (("mouse", -3), ("finger", -2)):  # the picture has 40
        page.run("$('results').ariaBusy = 'true'")
        drag(page, "$('box')", (0, pixels), kind)
        page.wait(SETTLED)
        top, left, bottom, right = after = page.run("box")
        assert top < before[0] and bottom < before[2] and left == pytest.approx(before[1]), (kind, before, after)
        before = after
    act(page, "clear.click()")


def test_an_address_holds_words_filters_stages_and_both_columns(page, address):
    page.open(address + "#")
    page.wait(f"document.querySelectorAll('.hit').length === 20 && {SETTLED}")
    title = page.run(TITLES)[4]
    act(page, f"words.value = {json.dumps(title)}; form.requestSubmit()")
    act(page, "run_b.value = 'tiny'; run_b.dispatchEvent(new Event('change'))")
    act(page, "document.querySelector('#facets input[type=checkbox]').click()")
    shown, here = page.run("$('results').innerText"), page.run("location.href")
    page.open("about:blank")
    page.open(here)
    page.wait(f"document.querySelectorAll('#results .list').length === 2 && {SETTLED}")
    assert page.run("$('results').innerText") == shown and page.run("words.value") == title
    page.size(390)  # a phone has both columns beside each other as well, and everything can be pressed
    one, two = page.run(
        "[...document.querySelectorAll('#results .list')].map(one => one.getBoundingClientRect().toJSON())"
    )
    assert one["x"] + one["width"] <= two["x"] and page.run("document.documentElement.scrollWidth") <= 390
    small = "[...document.querySelectorAll('button, select, label.button')].filter(one => one.offsetParent && "
    assert page.run(small + "one.offsetHeight < 24).map(one => one.outerHTML)") == []
    page.size(1280)
    act(page, "run_b.value = ''; run_b.dispatchEvent(new Event('change'))")
    act(page, "clear.click()")


def test_an_address_with_a_condition_of_the_wrong_form_shows_the_gallery(page, address):
    page.open("about:blank")
    wrong = json.dumps({"required": [{"field": "x", "values": "red"}]})  # the page leaves it out of its address
    page.send("Page.navigate", url=f"{address}?utm_source=x#conditions={urllib.parse.quote(wrong)}")
    page.wait("document.querySelectorAll('.hit').length === 20")
    page.wait("$('status').textContent === \"20 listings, in the catalogue's order.\"")


CONDITIONS = "JSON.stringify(asked.conditions)"


def test_predicted_attributes_are_exchanged_removed_searched_by_and_called_wrong(page, address, photo, tmp_path):
    page.open(address + "#")
    page.wait("document.querySelectorAll('.hit').length === 20")
    (tmp_path / "photo.png").write_bytes(photo)
    page.choose("#file", tmp_path / "photo.png")
    page.wait(f"document.querySelectorAll('#predicted button').length > 0 && {SETTLED}")
    page.run("$('less_likely')?.click()")
    page.wait("document.querySelectorAll('.seen select').length > 0")
    names = "[...document.querySelectorAll('[data-seen]:not(:disabled)')].map(one => one.dataset.seen)"
    _, _, third, *_ = before = page.run(names)
    chip = "[...document.querySelectorAll('.seen')].find(one => one.firstChild.dataset.seen === {})"
    find = [chip.format(json.dumps(value)) for value in before]

    page.run(f"{find[0]}.querySelector('[aria-label^=Remove]').click()")
    assert page.run(names) == before[1:] and page.run(CONDITIONS) == "{}"
    options = f"[...{find[1]}.querySelector('select').options].map(one => one.value)"
    other, another, *_ = [value for value in page.run(options) if value not in before]
    exchange = "var one = {}.querySelector('select'); one.value = {}; one.dispatchEvent(new Event('change'))"
    page.run(exchange.format(find[1], json.dumps(other)))
    assert page.run(names)[0] == other and page.run(CONDITIONS) == "{}"
    page.run(f"document.querySelector('[data-wrong=\"{third}\"]').click()")
    assert page.run("$('lines').value") == f"drop,{third}"

    act(page, "by_seen.click()")
    preferred = [clause["values"] for clause in page.run("asked.conditions.preferred")]
    assert preferred == [[other], *([value] for value in before[3:])]  # neither the removed nor the wrong one
    assert "cosine" in page.run("$('status').textContent")
    assert f"preferred mined: {other}: matched" in page.run("document.querySelector('.why').textContent")
    act(page, exchange.format(chip.format(json.dumps(other)), json.dumps(another)))
    assert page.run("asked.conditions.preferred[0].values") == [another]  # a condition follows its chip
    act(page, f"{chip.format(json.dumps(another))}.querySelector('[aria-label^=Remove]').click()")
    assert page.run("asked.conditions.preferred.length") == len(preferred) - 1
    act(page, f"asked.conditions = {{}}; {find[2]}.firstChild.click()")
    assert page.run("asked.conditions.required") == [{"field": "mined", "values": [third]}]
    assert page.run(f"{find[2]}.firstChild.getAttribute('aria-pressed')") == "true"

    page.run("navigator.clipboard.writeText = async text => { window.copied = text; }; $('copy_lines').click()")
    (tmp_path / "overrules.csv").write_text(page.wait("window.copied"))
    assert overrules.load(tmp_path / "overrules.csv").drop == {third}
    act(page, "$('remove').click()")
    assert page.run("document.querySelectorAll('.seen').length") == 0
    act(page, "clear.click()")


def test_values_beyond_the_first_and_unlikely_attributes_are_shown_on_demand(page, address):
    page.open(address + "#")
    page.wait(f"document.querySelectorAll('.hit').length === 20 && {SETTLED}")
    page.run(  # a field of more values than this gallery's have
        "var really = call; call = async (path, options) => { const known = await really(path, options); "
        "if (path.startsWith('/v1/facets')) known.fields.brand = Array.from({length: 30}, (_, number) => "
        "({value: `b${number}`, listings: 1})).slice(0, new URLSearchParams(path.split('?')[1]).get('top')); "
        "return known; }; 0"
    )
    act(page, "form.requestSubmit()")
    boxes = "document.querySelectorAll('#facets [data-key^=\"brand=\"]').length"
    button = "document.querySelector('#facets [data-key=\"brand, all\"]')"
    assert page.run(boxes) == 12 and page.run(f"{button}.textContent") == "Show all"
    page.run(f"{button}.focus(); {button}.click()")
    page.wait(f"{boxes} === 30 && document.activeElement.textContent === 'Show fewer'")
    page.run(f"{button}.click()")
    page.wait(f"{boxes} === 12")
    page.run("call = really; 0")

    of = "{field: 'mined', value: '%s', probability: %s, known: true}"
    page.run(f"see([{of % ('red', 0.6)}, {of % ('wool', 0.25)}, {of % ('jet', 0.04)}])")
    chips = "[...document.querySelectorAll('[data-seen]')].map(one => one.dataset.seen)"
    assert page.run(chips) == ["red", "wool"] and page.run("$('seen_count').textContent") == "Seen in the picture (2)"
    assert page.run("$('less_likely').textContent") == "Show 1 less likely"
    page.run("$('less_likely').click()")
    assert page.run(chips) == ["red", "wool", "jet"]
    page.run(f"forget(); see([{of % ('jet', 0.04)}])")
    assert page.run(chips) == [] and "nothing with certainty" in page.run("$('seen_count').textContent")
    page.run("forget()")
    assert page.run("$('seen_box').hidden")


def test_the_page_names_listings_says_what_it_waits_for_and_which_stages_it_lacks(page, address):
    page.open(address + "#")
    page.wait(f"document.querySelectorAll('.hit').length === 20 && {SETTLED}")
    title, one = page.run(TITLES)[0], page.run("shown[0].results[0].id")
    page.open("about:blank")
    page.open(f"{address}#like={urllib.parse.quote(json.dumps([one]))}")  # which somebody has shared
    page.wait(f"$('active').textContent.startsWith({json.dumps('more like ' + title)})")
    page.wait(SETTLED)
    assert page.run("document.querySelector('#active .chip').title") == one
    assert "by chosen listings (cosine similarity)" in page.run("$('status').textContent")
    assert " · similarity " in page.run("document.querySelector('.scored').textContent")
    why = page.run("document.querySelector('.why ul').textContent")
    assert f"more like {title}: similarity" in why and 'the stage "reranking" re-ranked' in why
    assert page.run("stage_a.selectedOptions[0].textContent") == "reranking (reordered)" and page.run("left_out.hidden")
    left = "the stage 'ensemble' is not served, nor what follows it: why"
    page.run(f"served(runs.map(one => ({{...one, loaded: false, note: {json.dumps(left)}}})))")
    assert page.run("left_out.textContent") == f'tiny: {left}. By default, searches use "reranking".'
    assert page.run("!left_out.hidden")
    page.run("$('results').ariaBusy = 'true'; search()")
    page.wait(f"$('status').textContent.startsWith('Loading the run: about half a minute') || {SETTLED}")
    page.wait(SETTLED)
    act(page, "clear.click()")


def test_a_phone_shows_the_first_result_of_a_picture_within_two_screens(page, address, photo, tmp_path):
    page.size(390)
    page.open("about:blank")
    page.open(address)
    page.wait(f"document.querySelectorAll('.hit').length === 20 && {SETTLED}")
    (tmp_path / "photo.png").write_bytes(photo)
    page.run("$('results').ariaBusy = 'true'")
    page.choose("#file", tmp_path / "photo.png")
    page.wait(f"{SETTLED} && !$('seen_box').hidden")
    assert not page.run("seen_box.open") and not page.run("facets_box.open")
    assert page.run("document.querySelector('.hit').getBoundingClientRect().top + scrollY") < 2 * 844 - 150
    act(page, "clear.click()")
    page.size(1280)


def test_errors_are_sentences_and_a_phone_shows_everything(page, address, tmp_path):
    page.open(address + "#words=colour%3Acrimson")
    page.wait("!$('error').hidden")
    assert "which does not exist" in page.run("$('error').textContent")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    page.run("words.value = ''")
    page.choose("#file", tmp_path / "broken.png")
    page.wait("$('error').textContent.includes('truncated image file')")
    act(page, "clear.click()")
    assert page.run("$('error').hidden")
    for width in (390, 1280):
        for dark in (False, True):
            page.size(width, dark=dark)
            time.sleep(0.1)
            assert page.run("document.documentElement.scrollWidth") <= width
    page.size(390)
    unlabelled = page.run(
        "[...document.querySelectorAll('input, select, button')].filter(one => !one.labels?.length && "
        "!one.getAttribute('aria-label') && !one.textContent.trim()).map(one => one.outerHTML)"
    )
    assert unlabelled == []
    bad = [one for one in page.problems if "422" not in one]
    assert not bad, bad
