"""Train the tiny CLIP that vidxfer carries: pictures of the toy world with captions, contrastively, on one CPU core.

    python tests/bench/train_toy_clip.py pipeline/clip/toy          about 15 core-minutes; makes the carried files anew

    picture ─ random square, mirrored or grey at times ─▶ image tower ─┐
                                                                       ├─ cosine x scale ─▶ which fits which
    "a large red cross on the left" ────────────────────▶ text tower ──┘

A caption may name colour, shape, size and place, or leave some of them out; every picture of a batch that it fits
counts as right, so that two red crosses are no contradiction. No caption ever speaks of motion.

Colours, sizes and shapes are learned in this time, places are not: "left" and "right" end as one word. Class names need
two, so the words of place get their untrained vectors back, like all words that no caption has. The temperature that
training ends at is written down, and 1 / 100 is stored: heads that compare with class names take it as theirs, and
published CLIP models have 1 / 100. No ranking of CLIP's own depends on it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from measure import machine
from open_clip.model import CLIP
from open_clip.transform import PreprocessCfg
from torch import Tensor

from vidxfer.pipeline.clip.tiny import TOY_CLIP_CONFIG, save_half
from vidxfer.pipeline.datasets.toy import ToyDesign, draw_picture
from vidxfer.pipeline.datasets.toy_shapes import COLOURS, DIFFICULTIES, MOST_APPEARANCES, SHAPES, appearance

SEED = 0
POOL, HELD_OUT = 24_000, 3_600
STEPS, BATCH = 3_000, 192
RATE, WARM_UP, DECAY = 1e-3, 150, 0.05
SIDE_PX = TOY_CLIP_CONFIG["model_cfg"]["vision_cfg"]["image_size"]
FACTS = ("colour", "shape", "across", "down", "size")
ACROSS = ("on the left", "in the middle", "on the right")
DOWN = ("at the top", "", "at the bottom")
SIZES = ("small", "", "large")
PLACE_WORDS = ("left", "right", "middle", "top", "bottom")
TEMPLATES = ("{}", "a photo of {}", "a picture of {}")


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Drawn frames: pixels uint8 [picture height width rgb], pose [picture 4], colour and shape numbers [picture]."""

    pixels: Tensor
    pose: Tensor
    colour: Tensor
    shape: Tensor


def draw(count: int, seed: int) -> Pictures:
    """`count` pictures of every appearance and difficulty in turn."""
    levels = [ToyDesign(difficulty=name) for name in DIFFICULTIES]
    drawn, poses, colours, shapes = [], [], [], []
    for number in range(count):
        thing = appearance(number % MOST_APPEARANCES)
        level = levels[number // MOST_APPEARANCES % len(levels)]
        pixels, pose = draw_picture(thing, np.random.default_rng([seed, number]), level)
        drawn.append(pixels)
        poses.append(pose)
        colours.append(tuple(COLOURS).index(thing[0]))
        shapes.append(SHAPES.index(thing[1]))
    return Pictures(
        pixels=torch.from_numpy(np.stack(drawn)),
        pose=torch.from_numpy(np.stack(poses)),
        colour=torch.tensor(colours),
        shape=torch.tensor(shapes),
    )


def cut(pictures: Pictures, rows: Tensor, draw_from: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Squares out of pictures, normalised [picture rgb height width], and their facts [picture fact].

    With a generator the square is random, but holds the middle of the thing, and one in two is mirrored; without, it is
    the centre. The colour of a grey picture is unknown: -1.
    """
    pixels = pictures.pixels[rows].permute(0, 3, 1, 2).float() / 255
    x, y, radius, _ = pictures.pose[rows].unbind(1)
    height, width = pixels.shape[2:]
    aspect, count = width / height, len(rows)
    colour = pictures.colour[rows].clone()
    if draw_from is None:
        side, left, top = torch.ones(count), torch.full((count,), (aspect - 1) / 2), torch.zeros(count)
        mirror = torch.ones(count)
    else:
        side, across, down, toss, grey = torch.rand(5, count, generator=draw_from)
        side = 0.65 + 0.35 * side
        left = _inside(across * (aspect - side), x, side, aspect)
        top = _inside(down * (1 - side), y, side, 1.0)
        mirror = torch.where(toss < 0.5, 1.0, -1.0)
        pixels = torch.where((grey < 0.1)[:, None, None, None], pixels.mean(dim=1, keepdim=True), pixels)
        colour[grey < 0.1] = -1
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = mirror * side / aspect, (2 * left + side) / aspect - 1
    theta[:, 1, 1], theta[:, 1, 2] = side, 2 * top + side - 1
    grid = F.affine_grid(theta, [count, 3, SIDE_PX, SIDE_PX], align_corners=False)
    squares = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    u, v, relative = (x - left) / side, (y - top) / side, radius / side
    u = torch.where(mirror < 0, 1 - u, u)
    facts = torch.stack([colour, pictures.shape[rows], _third(u, 0.4, 0.6), _third(v, 0.4, 0.6),
                         _third(relative, 0.18, 0.3)], dim=1)  # fmt: skip
    plain = PreprocessCfg()
    mean, std = (torch.tensor(value)[:, None, None] for value in (plain.mean, plain.std))
    return (squares - mean) / std, facts


def _inside(start: Tensor, middle: Tensor, side: Tensor, end: float) -> Tensor:
    """Where a square begins: as drawn, or moved so that it holds the middle of the thing."""
    return (
        torch.minimum(torch.maximum(start, middle - 0.9 * side), middle - 0.1 * side).clamp(min=0).minimum(end - side)
    )


def _third(value: Tensor, low: float, high: float) -> Tensor:
    return (value > low).long() + (value > high).long()


def captions(facts: Tensor, generator: torch.Generator) -> tuple[list[str], Tensor]:
    """A caption for each row of facts, and what it says [caption fact]; -1: nothing."""
    chance = torch.rand(facts.shape, generator=generator)
    said = torch.where(chance < torch.tensor([0.9, 0.9, 0.5, 0.5, 0.4]), facts, -1)
    said[:, 4] = torch.where(said[:, 4] == 1, -1, said[:, 4])
    said[:, 3] = torch.where(said[:, 3] == 1, -1, said[:, 3])
    dull = (said[:, :2] == -1).all(dim=1)
    said[dull, 1] = facts[dull, 1]
    templates = torch.randint(len(TEMPLATES), (len(facts),), generator=generator).tolist()
    return [TEMPLATES[one].format(words(row)) for one, row in zip(templates, said.tolist(), strict=True)], said


def words(said: list[int]) -> str:
    """ "a large red cross on the left at the top"."""
    colour, shape, across, down, size = said
    parts = [
        "a",
        SIZES[size] if size >= 0 else "",
        tuple(COLOURS)[colour] if colour >= 0 else "",
        SHAPES[shape] if shape >= 0 else "thing",
        ACROSS[across] if across >= 0 else "",
        DOWN[down] if down >= 0 else "",
    ]
    return " ".join(part for part in parts if part)


def loss_of(image: Tensor, text: Tensor, scale: Tensor, facts: Tensor, said: Tensor) -> Tensor:
    """Cross-entropy both ways; a caption fits every picture that has all it says."""
    fits = ((said[:, None] == facts[None]) | (said[:, None] == -1)).all(dim=-1).float()  # caption picture
    logits = scale * text @ image.T
    to_pictures = -(fits / fits.sum(dim=1, keepdim=True) * logits.log_softmax(dim=1)).sum(dim=1).mean()
    to_captions = -(fits / fits.sum(dim=0, keepdim=True) * logits.log_softmax(dim=0)).sum(dim=0).mean()
    return (to_pictures + to_captions) / 2


@torch.inference_mode()
def zero_shot(model: CLIP, tokens: Tensor, held: Pictures) -> dict[str, float]:
    """Share of held-out pictures whose colour and shape have the nearest of 36 captions, by difficulty and in all."""
    model.eval()
    text = model.encode_text(tokens, normalize=True)
    right: list[Tensor] = []
    for rows in torch.arange(len(held.colour)).split(300):
        pixels, _ = cut(held, rows, None)
        best = (model.encode_image(pixels, normalize=True) @ text.T).argmax(dim=1)
        right.append(best == held.colour[rows] * len(SHAPES) + held.shape[rows])
    model.train()
    every = torch.cat(right).float()
    level = torch.arange(len(every)) // MOST_APPEARANCES % len(DIFFICULTIES)
    by_level = {name: float(every[level == place].mean()) for place, name in enumerate(DIFFICULTIES)}
    return {"held_out_top1": round(float(every.mean()), 4), **{k: round(v, 4) for k, v in by_level.items()}}


def build() -> tuple[CLIP, torch.optim.Optimizer]:
    """The untrained model and its optimiser."""
    torch.manual_seed(SEED)
    model = CLIP(**TOY_CLIP_CONFIG["model_cfg"])
    torch.nn.init.normal_(model.token_embedding.weight, std=0.3)  # words it never reads stay as far apart as these
    matrices = [p for name, p in model.named_parameters() if p.ndim >= 2 and "embedding" not in name]
    known = set(map(id, matrices))
    others = [p for p in model.parameters() if id(p) not in known]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    return model, torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98))


def steps(steps_in_all: int, optimiser: torch.optim.Optimizer) -> Iterator[tuple[int, float]]:
    """Step numbers and learning rates: linear warm-up, then half a cosine."""
    for step in range(1, steps_in_all + 1):
        after = max(0, step - WARM_UP) / (steps_in_all - WARM_UP)
        rate = RATE * min(step / WARM_UP, 0.5 * (1 + float(np.cos(np.pi * after))))
        for group in optimiser.param_groups:
            group["lr"] = rate
        yield step, rate


def main() -> None:
    """Draw, train, score, save."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("folder", type=Path)
    asked.add_argument("--steps", type=int, default=STEPS)
    given = asked.parse_args()
    torch.set_num_threads(1)
    folder: Path = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(TOY_CLIP_CONFIG, indent=1) + "\n")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    pool, held = draw(POOL, SEED), draw(HELD_OUT, SEED + 1)
    names = tokenizer([f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES])
    model, optimiser = build()
    untrained = model.token_embedding.weight.detach().clone()
    generator = torch.Generator().manual_seed(SEED)
    log = (folder / "training.jsonl").open("w", encoding="utf-8")

    def note(**entry: object) -> None:
        log.write(json.dumps(entry) + "\n")
        log.flush()
        print(json.dumps(entry), flush=True)

    note(seed=SEED, pictures=POOL, steps=given.steps, batch=BATCH, rate=RATE, machine=machine())
    losses: list[float] = []
    for step, rate in steps(given.steps, optimiser):
        pixels, facts = cut(pool, torch.randint(POOL, (BATCH,), generator=generator), generator)
        text, said = captions(facts, generator)
        image = model.encode_image(pixels, normalize=True)
        caption = model.encode_text(tokenizer(text), normalize=True)
        loss = loss_of(image, caption, model.logit_scale.exp(), facts, said)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=float(np.log(100)))
        losses.append(float(loss.detach()))
        if step % 100 == 0 or step == given.steps:
            scored = zero_shot(model, names, held) if step % 500 == 0 or step == given.steps else {}
            mean = round(sum(losses) / len(losses), 4)
            note(step=step, loss=mean, rate=round(rate, 7), core_minutes=round(time.process_time() / 60, 2), **scored)
            losses.clear()
    places = sorted({int(token) for token in tokenizer(list(PLACE_WORDS))[:, 1]})
    with torch.no_grad():
        model.token_embedding.weight[places] = untrained[places]
        ended_at = round(float(model.logit_scale.half().float().exp()), 3)
        model.logit_scale.fill_(float(np.log(100)))
    size = save_half(model.state_dict(), folder / "open_clip_model.safetensors")
    model.load_state_dict({name: value.half().float() for name, value in model.state_dict().items()})
    note(
        file_bytes=size,
        after_rounding=zero_shot(model, names, held),
        trained_logit_scale=ended_at,
    )


if __name__ == "__main__":
    main()
