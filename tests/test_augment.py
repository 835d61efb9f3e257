from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.nn import functional

from digitkaggle.augment import (
    CLASSIC_COPIES,
    affine_matrices,
    apply_affine,
    augmented,
    classic_expanded_set,
    random_affine,
)
from digitkaggle.settings import make_settings

RANGES = {"rotation": 10.0, "shift": 2.8, "zoom": 0.1, "shear": 10.0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(images: int = 3) -> torch.Tensor:
    """Images without any symmetry, dark at the edges so that nothing falls over them."""
    pixels = torch.rand(images, 1, 28, 28, generator=seeded())
    pixels[..., :4] = pixels[..., -4:] = pixels[..., :4, :] = pixels[..., -4:, :] = 0
    return pixels


def moved(images: torch.Tensor, rotation=0.0, shift=(0.0, 0.0), zoom=1.0, shear=0.0):
    count = len(images)
    matrices = affine_matrices(
        rotation=torch.full((count,), rotation),
        shift=torch.tensor([shift] * count),
        zoom=torch.full((count,), zoom),
        shear=torch.full((count,), shear),
    )
    return apply_affine(images, matrices, images.shape[-1])


def test_zero_ranges_give_the_images_back_to_the_bit():
    images = noise()
    same = random_affine(images, seeded(), rotation=0, shift=0, zoom=0, shear=0)
    assert torch.equal(same, images)


@pytest.mark.parametrize(("right", "down"), [(1, 0), (-3, 0), (0, 2), (4, -4)])
def test_a_shift_by_whole_pixels_is_a_roll(right, down):
    images = noise()
    torch.testing.assert_close(
        moved(images, shift=(right, down)), images.roll((down, right), (2, 3)), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_are_rot90(turns):
    images = noise()
    torch.testing.assert_close(
        moved(images, rotation=90.0 * turns), images.rot90(turns, (2, 3)), atol=1e-5, rtol=0
    )


def test_zoom_by_two_shows_the_middle_twice_as_large():
    image = torch.zeros(1, 1, 28, 28)
    image[..., 12:16, 12:16] = 1
    larger = moved(image, zoom=2.0)
    assert larger[0, 0, 11:17, 11:17].min() == 1
    assert larger.sum().item() == pytest.approx(4 * 16, rel=1e-4)


def test_shear_leans_an_upright_stroke_to_the_right():
    image = torch.zeros(1, 1, 28, 28)
    image[..., 4:24, 13:15] = 1
    leaning = moved(image, shear=45.0)[0, 0]
    top, middle, bottom = (leaning[row].argmax().item() for row in (6, 13, 21))
    assert top > middle > bottom


def test_rotation_is_that_of_scipy(sample):
    image = sample.train_images[:1].float() / 255
    turned = ndimage.rotate(image[0, 0].numpy(), 10, reshape=False, order=1)
    ours = moved(image, rotation=10.0)[0, 0].numpy()
    np.testing.assert_allclose(ours, turned, atol=2e-3)


def test_the_same_generator_gives_the_same_images_and_another_gives_others():
    images = noise()
    first = random_affine(images, seeded(1), **RANGES)
    assert torch.equal(first, random_affine(images, seeded(1), **RANGES))
    assert not torch.equal(first, random_affine(images, seeded(2), **RANGES))
    assert not torch.equal(first, images)


def test_every_image_of_a_batch_moves_its_own_way():
    images = noise(1).expand(2, -1, -1, -1)
    first, second = random_affine(images, seeded(), **RANGES)
    assert not torch.equal(first, second)


def test_half_the_size_is_the_mean_of_each_two_by_two_pixels():
    images = noise()
    half = random_affine(images, seeded(), rotation=0, shift=0, zoom=0, shear=0, size=14)
    torch.testing.assert_close(half, functional.avg_pool2d(images, 2), atol=1e-6, rtol=0)


@given(
    seed=st.integers(0, 1000),
    rotation=st.floats(0, 180),
    shift=st.floats(0, 28),
    zoom=st.floats(0, 0.9),
    shear=st.floats(0, 80),
    size=st.integers(8, 28),
)
@settings(max_examples=40)
def test_any_ranges_keep_shape_and_bounds_and_leave_the_input_alone(
    seed, rotation, shift, zoom, shear, size
):
    images = noise()
    before = images.clone()
    result = random_affine(
        images, seeded(seed), rotation=rotation, shift=shift, zoom=zoom, shear=shear, size=size
    )
    assert result.shape == (len(images), 1, size, size)
    assert result.min() >= 0
    assert result.max() <= 1 + 1e-6
    assert torch.equal(images, before)


def test_the_classic_set_equals_scipy_image_by_image(sample):
    images = sample.train_images[::200]
    expanded = classic_expanded_set(images)
    expected = []
    pixels = images[:, 0].numpy().astype(np.float32) / 255
    expected.append(pixels)
    for offset in [(0, -1), (0, 1), (-1, 0), (1, 0)]:
        expected.append([ndimage.shift(image, offset, order=3, cval=0) for image in pixels])
    for degrees in (-10, 10):
        expected.append(
            [ndimage.rotate(image, degrees, reshape=False, order=3, cval=0) for image in pixels]
        )
    assert expanded.dtype == torch.float32
    assert expanded.shape == (CLASSIC_COPIES * len(images), 1, 28, 28)
    difference = np.abs(expanded[:, 0].numpy() - np.concatenate(expected)).max()
    assert difference <= 1e-6


def test_a_batch_is_augmented_as_its_settings_say():
    images = torch.rand(4, 1, 28, 28, generator=seeded())
    chosen = make_settings("fast", RANGES)
    expected = random_affine(images, seeded(1), size=20, **RANGES)
    assert torch.equal(augmented(images, chosen, seeded(1), size=20), expected)
    for augmentation in ("none", "expanded"):
        plain = make_settings("classic", RANGES | {"augmentation": augmentation})
        generator = seeded(1)
        assert augmented(images, plain, generator) is images
        assert torch.equal(generator.get_state(), seeded(1).get_state()), "nothing is drawn"


def test_the_classic_shifts_go_left_right_up_and_down():
    image = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    image[0, 0, 10, 20] = 255
    bright = [divmod(int(copy.argmax()), 28) for copy in classic_expanded_set(image)[:5]]
    assert bright == [(10, 20), (10, 19), (10, 21), (9, 20), (11, 20)]
