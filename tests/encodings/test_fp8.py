"""Block-scaled FP8 against torch, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from msport.encodings import fp8


def random_layer(outputs: int, inputs: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Codes of every kind but NaN, and scales of the size that Qwen3-FP8 has."""
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 256, (outputs, inputs), np.uint8)
    codes[codes & 0x7F == 0x7F] = 0x7E
    shape = -(-outputs // fp8.BLOCK), -(-inputs // fp8.BLOCK)
    return codes, generator.uniform(1e-5, 1e-3, shape).astype(np.float32)


def decoded(codes: np.ndarray, scales: np.ndarray, first: int = 0, last: int | None = None) -> np.ndarray:
    last = len(codes) if last is None else last
    out = np.empty((last - first, codes.shape[1]), np.float32)
    fp8.decode(codes[first:last], scales[first // fp8.BLOCK : -(-last // fp8.BLOCK)], first, out)
    return out


def test_the_codes_are_those_of_the_standard() -> None:
    values = fp8.code_values()
    assert [values[code] for code in (0x00, 0x01, 0x08, 0x38, 0x7E, 0xB8, 0xFE)] == [0, 2**-9, 2**-6, 1, 448, -1, -448]
    assert np.isnan(values[[0x7F, 0xFF]]).all()
    assert np.isfinite(np.delete(values, [0x7F, 0xFF])).all()
    assert np.signbit(values[0x80])
    assert not np.signbit(values[0x00])


@pytest.mark.reference
def test_every_code_is_what_torch_reads() -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().numpy()
    ours = fp8.code_values()
    numbers = ~np.isnan(theirs)
    np.testing.assert_array_equal(ours[numbers].view(np.uint32), theirs[numbers].view(np.uint32))
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))


@pytest.mark.reference
@pytest.mark.parametrize(("outputs", "inputs"), [(256, 384), (130, 129), (1, 1), (100, 300)])
def test_a_layer_equals_the_result_of_torch(outputs: int, inputs: int) -> None:
    torch = pytest.importorskip("torch")
    codes, scales = random_layer(outputs, inputs)
    weight = torch.from_numpy(codes).view(torch.float8_e4m3fn).to(torch.float32)
    blocks = torch.from_numpy(scales).repeat_interleave(128, 0)[:outputs].repeat_interleave(128, 1)[:, :inputs]
    expected = (weight * blocks).numpy()
    np.testing.assert_array_equal(decoded(codes, scales).view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize(("first", "last"), [(0, 1), (0, 128), (100, 200), (127, 129), (128, 300), (299, 300)])
def test_any_run_of_rows_is_that_of_the_whole(first: int, last: int) -> None:
    codes, scales = random_layer(300, 200)
    np.testing.assert_array_equal(decoded(codes, scales, first, last), decoded(codes, scales)[first:last])


def test_nan_stays_nan_and_an_infinite_scale_infinite() -> None:
    codes = np.array([[0x7F, 0xFF, 0x38, 0xB8]], np.uint8)
    assert np.isnan(decoded(codes, np.ones((1, 1), np.float32))[0, :2]).all()
    np.testing.assert_array_equal(decoded(codes, np.full((1, 1), np.inf, np.float32))[0, 2:], [np.inf, -np.inf])


def test_a_product_beyond_float32_is_refused() -> None:
    with pytest.raises(OverflowError):
        decoded(np.full((1, 4), 0x7E, np.uint8), np.full((1, 1), 1e37, np.float32))
