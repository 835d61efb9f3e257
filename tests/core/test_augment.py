from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from digitkaggle.core.affine import apply_affine, build_affine_matrices, resize
from digitkaggle.core.augment import augment
from digitkaggle.core.settings import (
    Settings,
    derive_member_settings,
    make_settings,
)
from tests.core import make_generator


def make_noise(images: int = 3) -> torch.Tensor:
    """Images without any symmetry, dark at the edges so that nothing is cut off."""
    pixels = torch.rand(images, 1, 28, 28, generator=make_generator())
    return functional.pad(pixels[..., 4:-4, 4:-4], (4, 4, 4, 4))


def make_member(preset: str, changes: dict[str, object]) -> Settings:
    return derive_member_settings(make_settings(preset, changes), 1)


def transform(images: torch.Tensor, rotation=0.0, shift=(0.0, 0.0), zoom=1.0, shear=0.0):
    """All images by one affine map."""
    matrix = build_affine_matrices(
        rotation=torch.tensor([rotation]),
        shift=torch.tensor([shift]),
        zoom=torch.tensor([zoom]),
        shear=torch.tensor([shear]),
    )
    return apply_affine(images, matrix.expand(len(images), -1, -1), images.shape[-1])


def test_a_shift_by_whole_pixels_is_a_roll_and_a_quarter_turn_is_rot90():
    noise = make_noise()
    shifted, turned = transform(noise, shift=(4.0, -2.0)), transform(noise, rotation=90.0)
    torch.testing.assert_close(shifted, noise.roll((-2, 4), (2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(turned, noise.rot90(1, (2, 3)), atol=1e-5, rtol=0)


def test_zoom_enlarges_about_the_center_and_shear_leans_to_the_right():
    image = torch.zeros(1, 1, 28, 28)
    image[..., 12:16, 12:16] = 1
    larger = transform(image, zoom=2.0)
    assert larger[0, 0, 11:17, 11:17].min() == 1
    assert larger.sum().item() == pytest.approx(4 * 16, rel=1e-4)
    image[..., 4:24, 13:15] = 2
    leaning = transform(image, shear=45.0)[0, 0]
    top, middle, bottom = (leaning[row].argmax().item() for row in (6, 13, 21))
    assert top > middle > bottom


def test_without_ranges_only_the_size_changes_and_without_affine_nothing_changes():
    still = make_member("fast", {"rotation": 0, "shift": 0, "zoom": 0, "shear": 0})
    assert torch.equal(augment(make_noise(), still, make_generator()), make_noise())
    half = augment(make_noise(), still, make_generator(), size=14)
    torch.testing.assert_close(half, functional.avg_pool2d(make_noise(), 2), atol=1e-6, rtol=0)
    for augmentation in ("none", "expanded"):
        plain = make_member("classic", {"augmentation": augmentation})
        assert torch.equal(augment(make_noise(), plain, make_generator()), make_noise())


RANGES = {"rotation": 180, "shift": 28, "zoom": 0.9, "shear": 80}


@given(
    seed=st.integers(0, 1000),
    size=st.integers(8, 28),
    ranges=st.fixed_dictionaries({name: st.floats(0.01, RANGES[name]) for name in RANGES}),
)
@settings(max_examples=40)
def test_any_ranges_transform_each_image_by_its_own_seeded_draw_within_bounds(seed, size, ranges):
    images, member = make_noise(1).expand(2, -1, -1, -1), make_member("fast", ranges)
    result = augment(images, member, make_generator(seed), size)
    assert result.shape == (2, 1, size, size)
    assert 0 <= result.min() <= result.max() <= 1 + 1e-6
    assert torch.equal(result, augment(images, member, make_generator(seed), size))
    assert not torch.equal(*result) or not result.any()
    assert torch.equal(images[0], make_noise(1)[0]), "the input is unchanged"


def test_resizing_is_the_resampling_of_augmentation_without_its_ranges():
    still = {"rotation": 0, "shift": 0, "zoom": 0, "shear": 0}
    settings = derive_member_settings(make_settings("fast", still), 1)
    for size in (14, 20, 28):
        expected = augment(make_noise(), settings, make_generator(), size)
        torch.testing.assert_close(resize(make_noise(), size), expected)
