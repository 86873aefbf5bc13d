"""Make the example pairs in `examples/pairs` from photos that scikit-image ships.

Run: pip install scikit-image && python examples/make_pairs.py

Photos: `astronaut` (NASA, public domain), `chelsea` (Stefan van der Walt, CC0), `coffee`
(Rachel Michetti, CC0), `rocket` (SpaceX, released into the public domain). The edits are drawn
here with Pillow; the labels beside the targets are written by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter
from skimage import data

FOLDER = Path(__file__).parent / "pairs"
SCALE = 4  # shapes are drawn four times as large and scaled down: smooth edges


def drawn(image: Image.Image, draw: Callable[[ImageDraw.ImageDraw], None]) -> Image.Image:
    """The image with shapes drawn on it; coordinates are those of the image, times SCALE."""
    layer = Image.new("RGBA", (image.width * SCALE, image.height * SCALE))
    draw(ImageDraw.Draw(layer))
    layer = layer.resize(image.size, Image.Resampling.LANCZOS)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def scaled(*points: float) -> list[float]:
    return [SCALE * point for point in points]


def sunglasses(image: Image.Image) -> Image.Image:
    def draw(pen: ImageDraw.ImageDraw) -> None:
        black = (18, 18, 22, 255)
        for left, right in ((178, 216), (228, 266)):
            pen.rounded_rectangle(scaled(left, 92, right, 122), radius=12 * SCALE, fill=black)
        pen.line(scaled(214, 101, 230, 101), fill=black, width=4 * SCALE)
        for left in (184, 234):
            pen.line(scaled(left, 114, left + 10, 98), fill=(90, 90, 100, 255), width=2 * SCALE)

    return drawn(image, draw)


def party_hat(image: Image.Image) -> Image.Image:
    def draw(pen: ImageDraw.ImageDraw) -> None:
        tip, left, right = (233, 6), (196, 76), (268, 76)
        pen.polygon(scaled(*tip, *left, *right), fill=(40, 110, 200, 255))
        for step, x in (
            (0.35, 231),
            (0.62, 221),
            (0.62, 244),
            (0.86, 212),
            (0.86, 234),
            (0.86, 254),
        ):
            y = tip[1] + step * (left[1] - tip[1])
            pen.ellipse(scaled(x - 4, y - 4, x + 4, y + 4), fill=(250, 215, 60, 255))
        pen.ellipse(scaled(225, -4, 241, 12), fill=(250, 215, 60, 255))

    return drawn(image, draw)


def balloon(image: Image.Image) -> Image.Image:
    def draw(pen: ImageDraw.ImageDraw) -> None:
        red = (205, 45, 45, 255)
        for x in (112, 148):
            pen.line(
                scaled(130 + (x - 130) * 0.8, 122, 130 + (x - 130) * 0.4, 160),
                fill=(70, 50, 40, 255),
                width=SCALE,
            )
        pen.ellipse(scaled(90, 40, 170, 124), fill=red)
        pen.polygon(scaled(99, 106, 161, 106, 140, 138, 120, 138), fill=red)
        pen.ellipse(scaled(116, 40, 144, 128), fill=(240, 225, 190, 255))
        pen.rectangle(scaled(121, 158, 139, 172), fill=(120, 80, 45, 255))

    return drawn(image, draw)


def black_and_white(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("RGB")


def blurred_background(image: Image.Image) -> Image.Image:
    mask = Image.new("L", image.size, 255)
    pen = ImageDraw.Draw(mask)
    pen.ellipse((60, 5, 500, 398), fill=0)
    mask = mask.filter(ImageFilter.GaussianBlur(12))
    return Image.composite(image.filter(ImageFilter.GaussianBlur(9)), image, mask)


PAIRS: dict[str, tuple[str, Callable[[Image.Image], Image.Image] | None, str, str | None]] = {
    "astronaut_sunglasses": (
        "astronaut",
        sunglasses,
        "Put black sunglasses with rounded lenses on the woman's face",
        "The user wants to put a pair of black sunglasses on the woman: two dark, rounded "
        "lenses with a thin bridge sit level over both eyes, each with a faint grey "
        "reflection. Everything else stays as it is: her wide smile, face shape, skin tone, "
        "age and short blond hair, the orange space suit with its patches and "
        "dark collar ring, the white helmet in front of her, the flag on the left and the "
        "model of the space shuttle on the right. The framing, the soft studio light and the "
        "look of an official portrait photograph stay unchanged.",
    ),
    "cat_party_hat": (
        "chelsea",
        party_hat,
        "Add a blue party hat with yellow dots and a yellow bobble to the top of the cat's head",
        "The user wants to add a party hat to the cat: a pointed blue cone with round yellow "
        "dots and a yellow bobble at its tip stands upright on the top of its head, its base "
        "resting on the forehead above the eyes. The cat itself does not change: orange tabby"
        " fur with fine stripes, greenish eyes looking past the camera, pink nose, long white"
        " whiskers and a calm expression. Its pose, the tight close-up framing, the shallow "
        "focus with the soft background, and the natural light of the photograph all stay "
        "exactly as they are.",
    ),
    "rocket_balloon": (
        "rocket",
        balloon,
        (
            "Add a red hot-air balloon with a cream stripe and a brown basket to the sky at "
            "the top left"
        ),
        "The user wants to add a hot-air balloon to the sky at the top left: a round red "
        "envelope with one broad cream stripe down its middle, two thin ropes and a small "
        "brown basket below, floating well away from the rocket. Everything else remains the "
        "same: the white rocket standing upright on its launch pad in the middle, the lattice"
        " towers on both sides, the bright star-shaped lamps near the ground and the deep "
        "blue evening sky. Keep the wide shot, the camera position, the exposure and the "
        "documentary style of the photograph unchanged.",
    ),
    "coffee_black_and_white": (
        "coffee",
        black_and_white,
        "Turn the colour photo into black and white",
        "The user wants to turn the colour photograph into a black-and-white one: the "
        "warm brown of "
        "the wooden table, the coffee and the red of the cup and its saucer become "
        "neutral shades of "
        "grey, with the same contrast and brightness as before and no tint. Nothing moves and "
        "nothing is added or removed: the cup of espresso, the saucer, the spoon beside it, the "
        "grain of the table and every reflection keep their shape, place and sharpness. The view "
        "from above at an angle, the framing and the soft light stay the same.",
    ),
    "coffee_blurred_background": (
        "coffee",
        blurred_background,
        "Blur the table around the cup, keeping the cup and the saucer sharp",
        "The user wants to blur the surroundings of the cup: the wooden table towards the"
        " edges and "
        "corners of the picture becomes soft, its grain melting into smooth brown areas, as with a "
        "wide-open lens, and the blur fades in gently around the saucer. The cup of coffee, its "
        "foam, the saucer and the spoon in the middle stay sharp and keep their colours, "
        "shapes and "
        "reflections. Nothing is added, removed or moved. The view from above at an angle, the "
        "framing, the warm colours and the light of the photograph stay unchanged.",
    ),
    "rocket_unchanged": ("rocket", None, "no change", None),
}


def main() -> None:
    for name, (photo, edit, caption, cot) in PAIRS.items():
        source = Image.fromarray(getattr(data, photo)())
        target = edit(source) if edit else source
        for folder, image in (("input", source), ("output", target)):
            path = FOLDER / folder / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, quality=88, optimize=True)
        label = {"caption": caption} | ({"caption_cot": cot} if cot else {})
        text = json.dumps(label, ensure_ascii=False, indent=2) + "\n"
        (FOLDER / "output" / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
