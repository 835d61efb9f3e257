from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from digitkaggle.core.augment import affine_matrices, apply_affine, augmented, erased
from digitkaggle.core.settings import make_settings
from tests.core import seeded


def noise(images: int = 3) -> torch.Tensor:
    """Images without any symmetry, dark at the edges so that nothing falls over them."""
    pixels = torch.rand(images, 1, 28, 28, generator=seeded())
    return functional.pad(pixels[..., 4:-4, 4:-4], (4, 4, 4, 4))


def moved(images: torch.Tensor, rotation=0.0, shift=(0.0, 0.0), zoom=1.0, shear=0.0):
    degrees, pixels, factor, lean = map(torch.tensor, ([rotation], [shift], [zoom], [shear]))
    matrix = affine_matrices(rotation=degrees, shift=pixels, zoom=factor, shear=lean)
    return apply_affine(images, matrix.expand(len(images), -1, -1), images.shape[-1])


def test_a_shift_by_whole_pixels_is_a_roll_and_a_quarter_turn_is_rot90():
    shifted, turned = moved(noise(), shift=(4.0, -2.0)), moved(noise(), rotation=90.0)
    torch.testing.assert_close(shifted, noise().roll((-2, 4), (2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(turned, noise().rot90(1, (2, 3)), atol=1e-5, rtol=0)


def test_zoom_enlarges_about_the_middle_and_shear_leans_to_the_right():
    image = torch.zeros(1, 1, 28, 28)
    image[..., 12:16, 12:16] = 1
    larger = moved(image, zoom=2.0)
    assert larger[0, 0, 11:17, 11:17].min() == 1
    assert larger.sum().item() == pytest.approx(4 * 16, rel=1e-4)
    image[..., 4:24, 13:15] = 2
    leaning = moved(image, shear=45.0)[0, 0]
    top, middle, bottom = (leaning[row].argmax().item() for row in (6, 13, 21))
    assert top > middle > bottom


def test_without_ranges_only_the_size_changes_and_without_affine_nothing():
    still = make_settings("fast", {"rotation": 0, "shift": 0, "zoom": 0, "shear": 0})
    assert torch.equal(augmented(noise(), still, seeded()), noise())
    holes = dataclasses.replace(still, erasing=(7,))
    assert torch.equal(augmented(noise(9), holes, seeded()), erased(noise(9), 7, seeded()))
    assert not torch.equal(augmented(noise(9), holes, seeded()), noise(9))
    half = augmented(noise(), still, seeded(), size=14)
    torch.testing.assert_close(half, functional.avg_pool2d(noise(), 2), atol=1e-6, rtol=0)
    for augmentation in ("none", "expanded"):
        plain = make_settings("classic", {"augmentation": augmentation})
        assert torch.equal(augmented(noise(), plain, seeded()), noise())


@pytest.mark.parametrize(("size", "side"), [(28, 7), (20, 7), (28, 28)])
def test_half_of_the_images_lose_a_square_and_nothing_else(size, side):
    images = torch.full((2000, 1, size, size), 0.5)
    result = erased(images, side, seeded())
    assert torch.equal(result, erased(images, side, seeded()))
    assert set(result.unique().tolist()) == {0, 0.5}
    holes = (result == 0).squeeze(1)
    assert holes.any(dim=(1, 2)).float().mean() == pytest.approx(0.5, abs=0.05)
    rows, columns = holes.any(dim=2), holes.any(dim=1)
    assert torch.equal(holes, rows[:, :, None] & columns[:, None, :]), "a rectangle each"
    assert max(rows.sum(dim=1).max(), columns.sum(dim=1).max()) == side * size // 28
    assert holes.any(dim=0).all(), "anywhere"


RANGES = {"rotation": 180, "shift": 28, "zoom": 0.9, "shear": 80}


@given(
    seed=st.integers(0, 1000),
    size=st.integers(8, 28),
    ranges=st.fixed_dictionaries({name: st.floats(0.01, RANGES[name]) for name in RANGES}),
)
@settings(max_examples=40)
def test_any_ranges_move_each_image_its_own_way_by_the_generator_within_bounds(seed, size, ranges):
    images, chosen = noise(1).expand(2, -1, -1, -1), make_settings("fast", ranges)
    result = augmented(images, chosen, seeded(seed), size)
    assert result.shape == (2, 1, size, size)
    assert 0 <= result.min() <= result.max() <= 1 + 1e-6
    assert torch.equal(result, augmented(images, chosen, seeded(seed), size))
    assert not torch.equal(*result) or not result.any()
    assert torch.equal(images[0], noise(1)[0]), "the input stays"
