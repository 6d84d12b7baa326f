"""Depthwise convolution with small kernels and strides, as a sum of shifted products, which is fast on CPUs.

XLA's grouped convolution is tens of times slower on a CPU than its arithmetic requires. A sum with one term per kernel
tap becomes a single loop over the output, vectorised along the channels, and so does the gradient of the pictures. The
gradient of the kernel is the hard part: XLA computes a sum over positions that is fused with a product one number at a
time. Here a loop over pictures adds whole rows of products, which is vectorised too.

`depthwise.py` has another form, for the 7x7 kernels of ConvNeXt. `benchmarks/depthwise.py` compares them.
"""

import functools

import jax
import jax.numpy as jnp

# Rows of products per loop of the kernel's gradient: more make a slow loop, fewer read the sum so far more often.
_ROWS = 28


def depthwise_conv(images: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Convolves each channel with its own kernel; as much padding as gives ceil(side / stride) rows and columns.

    Where the padding is odd, the lower and right edges get the larger part, as in TensorFlow's "SAME".

    Args:
      images: [B, H, W, C].
      kernel: [k, k, C].
      stride: of the output.

    Returns:
      [B, ceil(H / stride), ceil(W / stride), C], in the type of `images`.
    """
    kernel = kernel.astype(images.dtype)
    if jax.default_backend() == "cpu":
        return summed(images, kernel, stride)
    return grouped(images, kernel, stride)


def grouped(images: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Computes `depthwise_conv` as XLA's grouped convolution, for accelerators."""
    return jax.lax.conv_general_dilated(
        images,
        kernel[:, :, None, :],
        (stride, stride),
        "SAME",
        feature_group_count=images.shape[-1],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def padding(side: int, size: int, stride: int) -> tuple[int, int, int]:
    """Returns (positions of the output, zeros before, zeros after) of a "SAME" convolution along one axis."""
    positions = -(-side // stride)
    zeros = max((positions - 1) * stride + size - side, 0)
    return positions, zeros // 2, zeros - zeros // 2


def padded(images: jax.Array, size: int, stride: int) -> jax.Array:
    """Pads pictures [B, H, W, C] for a "SAME" convolution with kernels of `size`."""
    sides = [padding(side, size, stride)[1:] for side in images.shape[1:3]]
    return jnp.pad(images, ((0, 0), *sides, (0, 0)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def summed(images: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Computes `depthwise_conv` as a sum of shifted products, for CPUs."""
    batch, height, width, channels = images.shape
    rows, columns = -(-height // stride), -(-width // stride)
    inputs, total = padded(images, len(kernel), stride), 0
    for y in range(kernel.shape[0]):
        for x in range(kernel.shape[1]):
            stop = (batch, y + (rows - 1) * stride + 1, x + (columns - 1) * stride + 1, channels)
            total += jax.lax.slice(inputs, (0, y, x, 0), stop, (1, stride, stride, 1)) * kernel[y, x]
    return total


def _summed_forward(images, kernel, stride):
    return summed(images, kernel, stride), (images, kernel)


def _summed_backward(stride, arguments, cotangent):
    images, kernel = arguments
    cotangent = jax.lax.optimization_barrier(cotangent)  # read once per tap, so it must not be computed once per tap
    return _images_gradient(images.shape, kernel, cotangent, stride), _kernel_gradient(
        images, kernel, cotangent, stride
    )


summed.defvjp(_summed_forward, _summed_backward)


def _images_gradient(shape, kernel, cotangent, stride):
    """Computes the gradient of the pictures: for each phase of the stride, a sum of shifted products."""
    phases = [
        [_phase(shape, kernel, cotangent, stride, (row, column)) for column in range(stride)] for row in range(stride)
    ]
    if stride == 1:
        return phases[0][0]
    batch, height, width, channels = shape
    rows, columns = cotangent.shape[1:3]
    whole = [
        jnp.stack([jnp.pad(one, _missing(one.shape, rows, columns)) for one in of_row], axis=3) for of_row in phases
    ]
    whole = jnp.stack(whole, axis=2).reshape(batch, rows * stride, columns * stride, channels)
    return whole[:, :height, :width]


def _missing(shape, rows, columns):
    """Returns the padding that brings a phase to all rows and columns."""
    return ((0, 0), (0, rows - shape[1]), (0, columns - shape[2]), (0, 0))


def _phase(shape, kernel, cotangent, stride, phase):
    """Computes the gradient of the input positions whose row and column, modulo the stride, are `phase`."""
    batch, *sides, channels = shape
    taps, reach = [], []  # per axis: (tap, shift of the cotangent), and the padding and length of what is read
    for axis in range(2):
        positions, before, _ = padding(sides[axis], len(kernel), stride)
        count = -(-(sides[axis] - phase[axis]) // stride)
        offsets = [
            (tap, (phase[axis] + before - tap) // stride)
            for tap in range(len(kernel))
            if (phase[axis] + before - tap) % stride == 0
        ]
        shifts = [shift for _, shift in offsets] or [0]
        low, high = max(0, -min(shifts)), max(0, max(shifts) + count - positions)
        taps.append([(tap, shift + low) for tap, shift in offsets])
        reach.append((low, high, count))
    (top, bottom, rows), (left, right, columns) = reach
    padded, total = jnp.pad(cotangent, ((0, 0), (top, bottom), (left, right), (0, 0))), 0
    for y, down in taps[0]:
        for x, across in taps[1]:
            part = jax.lax.slice(padded, (0, down, across, 0), (batch, down + rows, across + columns, channels))
            total += part * kernel[y, x]
    return total if taps[0] and taps[1] else jnp.zeros((batch, rows, columns, channels), cotangent.dtype)


def _kernel_gradient(images, kernel, cotangent, stride):
    """Computes the gradient of the kernel [k, k, C] in float32, rounded to its type.

    A loop over pictures keeps, for every tap and column of the map, the sum of the products of all rows so far. Its
    body is unrolled over rows, and covers all vertical taps in one array.
    """
    size, (rows, columns, channels) = len(kernel), cotangent.shape[1:]
    images, cotangent = images.astype(jnp.float32), cotangent.astype(jnp.float32)
    inputs = padded(images, size, stride)
    most = max(1, _ROWS // rows)
    together = max(count for count in range(1, most + 1) if len(inputs) % count == 0)

    def body(sums, pictures):
        inputs, cotangent = pictures
        places = [(i, row) for i in range(together) for row in range(rows)]
        sums = list(sums)
        for start in range(0, len(places), _ROWS):
            for x in range(size):
                total = sums[x]
                for i, row in places[start : start + _ROWS]:
                    first, stop = row * stride, x + (columns - 1) * stride + 1
                    part = jax.lax.slice(
                        inputs, (i, first, x, 0), (i + 1, first + size, stop, channels), (1, 1, stride, 1)
                    )
                    total += part[0] * cotangent[i, row]
                sums[x] = jax.lax.optimization_barrier(total)
        return tuple(sums), None

    in_loop = [array.reshape(-1, together, *array.shape[1:]) for array in (inputs, cotangent)]
    start = tuple(jnp.zeros((size, columns, channels), jnp.float32) for _ in range(size))
    sums, _ = jax.lax.scan(body, start, tuple(in_loop))
    return jnp.stack([one.sum(axis=1) for one in sums], axis=1).astype(kernel.dtype)
