"""A picture is drawn once, whatever happens in between, and it is the same picture."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.models.tiny import tiny_model

from rasura.evaluation.images.image_cache import PictureCache, digest_picture
from rasura.evaluation.images.painter import Painter, Sampling, Shot
from rasura.patches.types import Digest

SHOTS = [Shot(f"a {word}", seed) for seed, word in enumerate(("dog", "cat", "photo", "painting", "tree"))]
BASE = Digest("b" * 64)


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Painter:
    folder = tiny_model(tmp_path_factory.mktemp("model") / "model")
    return Painter.load(folder, Sampling(steps=2, batch=2))


def pixels(painter: Painter, cache: PictureCache, shots: list[Shot] = SHOTS) -> list[bytes]:
    return [picture.tobytes() for picture in cache.draw(painter, BASE, shots, "drawing", silent)]


def silent(stage: str, done: int, total: int) -> None:
    pass


def test_the_second_time_nothing_is_drawn(tmp_path: Path, painter: Painter) -> None:
    first, second = PictureCache(tmp_path), PictureCache(tmp_path)
    drawn = pixels(painter, first)
    assert len(set(drawn)) == len(SHOTS)
    assert pixels(painter, second) == drawn
    assert (first.effort.drawn, first.effort.reused) == (5, 0)
    assert (second.effort.drawn, second.effort.reused) == (0, 5)


def test_what_was_lost_or_damaged_is_drawn_again_as_it_was(tmp_path: Path, painter: Painter) -> None:
    drawn = pixels(painter, PictureCache(tmp_path))
    lost, cut, other, *_ = sorted(tmp_path.rglob("*.png"))
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-200])
    other.write_bytes(b"no picture")
    again = PictureCache(tmp_path)
    assert pixels(painter, again) == drawn
    assert again.effort.drawn == 3


def test_an_interrupted_run_goes_on(tmp_path: Path, painter: Painter) -> None:
    """Killed after its first batch; what it had drawn is kept, and no half file is left."""

    def stop(stage: str, done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PictureCache(tmp_path / "one").draw(painter, BASE, SHOTS, "drawing", stop)
    again = PictureCache(tmp_path / "one")
    assert pixels(painter, again) == pixels(painter, PictureCache(tmp_path / "two"))
    assert (again.effort.drawn, again.effort.reused) == (3, 2)
    assert {path.suffix for path in (tmp_path / "one").rglob("*") if path.is_file()} == {".png"}


def test_the_company_of_a_picture_does_not_matter(tmp_path: Path, painter: Painter) -> None:
    """Any order, any repetition, alone or with others: the batch has one size, so the bits are the same."""
    drawn = dict(zip(SHOTS, pixels(painter, PictureCache(tmp_path / "all")), strict=True))
    mixed = [SHOTS[3], SHOTS[0], SHOTS[3]]
    assert pixels(painter, PictureCache(tmp_path / "some"), mixed) == [drawn[shot] for shot in mixed]


def test_everything_that_decides_a_picture_is_in_its_name(painter: Painter) -> None:
    shot = SHOTS[0]
    names = {
        digest_picture(painter, BASE, shot),
        digest_picture(painter, Digest("c" * 64), shot),
        digest_picture(painter, BASE, replace(shot, prompt="a dog.")),
        digest_picture(painter, BASE, replace(shot, seed=9)),
        *(
            digest_picture(Painter(painter.pipeline, sampling), BASE, shot)
            for sampling in (Sampling(3, batch=2), Sampling(2, 7.5, batch=2), Sampling(2, batch=3))
        ),
    }
    assert len(names) == 7
