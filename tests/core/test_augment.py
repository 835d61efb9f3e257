from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from digitkaggle.core.augment import affine_matrices, apply_affine, augmented
from digitkaggle.core.classic import SeededDropout, classic_expanded_set
from digitkaggle.core.settings import make_settings

STILL = {"rotation": 0, "shift": 0, "zoom": 0, "shear": 0, "image_sizes": (28,)}


def moved(images, rotation=0.0, shift=(0.0, 0.0), zoom=1.0, shear=0.0, size=28):
    matrices = affine_matrices(
        torch.tensor([rotation]), torch.tensor([shift]), torch.tensor([zoom]), torch.tensor([shear])
    )
    return apply_affine(images, matrices, size)


def spot(row: int, column: int) -> torch.Tensor:
    images = torch.zeros(1, 1, 28, 28)
    images[0, 0, row, column] = 1
    return images


def brightest(images: torch.Tensor) -> tuple[int, int]:
    return divmod(int(images.argmax()), images.shape[-1])


def test_a_shift_moves_right_and_down_by_pixels():
    assert torch.allclose(moved(spot(10, 12), shift=(2.0, 3.0)), spot(13, 14), atol=1e-5)


def test_a_quarter_turn_is_counter_clockwise():
    assert brightest(moved(spot(5, 13), rotation=90.0)) == (14, 5)


def test_zoom_spreads_from_the_middle_and_shear_leans_to_the_right():
    row, column = brightest(moved(spot(7, 13), zoom=2.0))
    assert row in (0, 1)
    assert column in (12, 13)
    assert brightest(moved(spot(4, 13), shear=20.0))[1] > 13
    assert brightest(moved(spot(23, 13), shear=20.0))[1] < 13


def test_a_smaller_size_shows_the_whole_image(sample):
    images = sample.train_images[:5].float()
    small = moved(images.repeat(1, 1, 1, 1)[:1], size=14)
    assert small.shape == (1, 1, 14, 14)
    assert torch.allclose(small, torch.nn.functional.avg_pool2d(images[:1], 2), atol=1e-3)


def test_without_ranges_images_come_back_to_the_bit(sample):
    images = sample.train_images[:5].float()
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(augmented(images, make_settings("fast", STILL), generator), images)
    none = make_settings("fast", {"augmentation": "none", "image_sizes": (28,)})
    assert torch.equal(augmented(images, none, generator), images)


@given(st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_images(sample, seed):
    images, settings = sample.train_images[:4].float(), make_settings("fast", {})
    draws = [torch.Generator().manual_seed(seed) for _ in range(2)]
    first, second = (augmented(images, settings, generator, 20) for generator in draws)
    assert torch.equal(first, second)
    assert first.shape == (4, 1, 20, 20)
    assert not torch.equal(first[0], first[1])


def test_the_classic_set_is_what_scipy_makes_image_by_image(sample):
    images = sample.train_images[:3]
    expanded = classic_expanded_set(images).view(7, 3, 28, 28).numpy()
    for number, image in enumerate(images[:, 0].numpy().astype(np.float32) / np.float32(255)):
        expected = [image, *(ndimage.shift(image, by) for by in ((0, -1), (0, 1), (-1, 0), (1, 0)))]
        expected += [ndimage.rotate(image, degrees, reshape=False) for degrees in (-10, 10)]
        assert np.allclose(expanded[:, number], expected, atol=1e-6)


def test_dropout_keeps_its_share_and_the_mean_and_draws_from_its_generator():
    values = torch.ones(400, 400)
    dropped = [SeededDropout(0.3, torch.Generator().manual_seed(1)).train()(values)] * 2
    assert torch.equal(*dropped)
    assert abs((dropped[0] == 0).float().mean() - 0.3) < 0.01
    assert abs(dropped[0].mean() - 1) < 0.01
    assert torch.equal(SeededDropout(0.3, torch.Generator()).eval()(values), values)
