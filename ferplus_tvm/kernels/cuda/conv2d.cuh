// Convolution with bias, activation and 2x2 max pooling as an implicit GEMM, of which a dense layer
// is one of 1x1.
//
//   y[m, o] = activation(bias[o] + sum over k of x[m, k] * weight[o, k])
//
// m counts output pixels and k = (ky, kx, ci); x[m, k] is read from the activation (N, H, W, CI) in
// place, zero outside of it.  A block computes a tile of `rows` pixels by `columns` channels, or its
// share of k (split-K by `split`).  `gemms` is the number of GEMMs in a batch, each with operands of
// its own, as Winograd's algorithm has them.  k-tiles of 16 words (floats or pairs of halves) pass
// through `stages` buffers in shared memory, copied while others are multiplied; rows lie 20 words
// apart, so that neither 16-byte reads of eight rows nor a fragment's reads conflict in a bank.
//
// With pooling, every 32 rows are 8 windows: row 8 q + g is pixel q of window g.  Both kinds of
// arithmetic below give a thread the rows 8 q + g of its g, so that it has whole windows.  That order
// of pixels is what the GEMM, the reduction of split-K and the direct convolution share, so they
// stand in one file.

namespace ferplus {

struct Conv2d {
  int batch, height, width, in_channels, out_channels;
  int kernel_y, kernel_x, stride_y, stride_x, top, left, dilation_y, dilation_x;
  int out_height, out_width;  // of the convolution, before pooling
  bool relu, pool, bounded;
  int rows, columns;            // of a block
  int warp_rows, warp_columns;  // of each of its warps: multiples of 32 and 16
  int stages, split, gemms;
};

__host__ __device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

constexpr int kStride = 20;  // words between rows in shared memory
constexpr int kTile = 4;    // 16-byte vectors of k in a step

__host__ __device__ constexpr int outputs(Conv2d c) {
  return c.pool ? c.batch * (c.out_height / 2) * (c.out_width / 2)
                : c.batch * c.out_height * c.out_width;
}
__host__ __device__ constexpr int gemm_rows(Conv2d c) {
  return c.pool ? ceil_div(outputs(c), 8) * 32 : outputs(c);
}

// Returns the row of pixel `part` of an output: of a window, or of the one pixel that it is.
template <Conv2d C>
__device__ __forceinline__ int row_of(int output, int part) {
  return C.pool ? output / 8 * 32 + part * 8 + output % 8 : output;
}

struct Pixel {
  int n, y, x;  // n is the batch size or more for a row without a pixel
};

template <Conv2d C>
__device__ __forceinline__ Pixel pixel_of(int row) {
  constexpr int kShrink = C.pool ? 2 : 1;
  constexpr int kWide = C.out_width / kShrink, kHigh = C.out_height / kShrink;
  const int output = C.pool ? row / 32 * 8 + row % 8 : row;
  const int part = C.pool ? row % 32 / 8 : 0;
  const int y = output / kWide % kHigh, x = output % kWide;
  return {output / (kWide * kHigh), y * kShrink + part / 2, x * kShrink + part % 2};
}

// A warp's sums by fused multiply-adds, each lane with 4 rows a band and 4 adjacent columns a group.
template <Conv2d C>
struct Simt {
  using T = float;
  static constexpr int kGroup = 4;
  static constexpr int kRows = C.warp_rows / 8, kGroups = C.warp_columns / 16;
  float sums[kRows][kGroups][kGroup] = {};

  static __device__ __forceinline__ int row(int lane) { return lane % 8; }
  static __device__ __forceinline__ int column(int lane, int group) {
    return (group * 4 + lane / 8) * 4;
  }

  __device__ __forceinline__ void add(const unsigned* a, const unsigned* b, int lane) {
#pragma unroll
    for (int k = 0; k < kTile; ++k) {
      float4 left[kRows];
#pragma unroll
      for (int i = 0; i < kRows; ++i)
        left[i] = *reinterpret_cast<const float4*>(a + (8 * i + row(lane)) * kStride + 4 * k);
#pragma unroll
      for (int j = 0; j < kGroups; ++j) {
#pragma unroll
        for (int w = 0; w < kGroup; ++w) {
          const float4 right =
              *reinterpret_cast<const float4*>(b + (column(lane, j) + w) * kStride + 4 * k);
#pragma unroll
          for (int i = 0; i < kRows; ++i) {
            float sum = sums[i][j][w];
            sum = fmaf(left[i].x, right.x, sum);
            sum = fmaf(left[i].y, right.y, sum);
            sum = fmaf(left[i].z, right.z, sum);
            sums[i][j][w] = fmaf(left[i].w, right.w, sum);
          }
        }
      }
    }
  }
};

// A warp's sums by tensor cores, each lane with 4 rows a band and 2 adjacent columns a group.
template <Conv2d C, typename Element>
struct TensorCores {
  using T = Element;
  static constexpr int kGroup = 2;
  static constexpr int kRows = C.warp_rows / 8, kGroups = C.warp_columns / 8;
  float sums[kRows][kGroups][kGroup] = {};

  static __device__ __forceinline__ int row(int lane) { return lane / 4; }
  static __device__ __forceinline__ int column(int lane, int group) {
    return group * 8 + lane % 4 * 2;
  }

  __device__ __forceinline__ void add(const unsigned* a, const unsigned* b, int lane) {
    const int word = lane % 4;
#pragma unroll
    for (int k = 0; k < 4 * kTile; k += 8) {
      unsigned right[kGroups][2];
#pragma unroll
      for (int j = 0; j < kGroups; ++j) {
        const unsigned* from = b + (8 * j + lane / 4) * kStride + k + word;
        right[j][0] = from[0];
        right[j][1] = from[4];
      }
#pragma unroll
      for (int i = 0; i < kRows; i += 2) {
        const unsigned* from = a + (8 * i + row(lane)) * kStride + k + word;
        const unsigned left[4] = {from[0], from[8 * kStride], from[4], from[8 * kStride + 4]};
#pragma unroll
        for (int j = 0; j < kGroups; ++j)
          multiply_fragments<T>(sums[i][j], sums[i + 1][j], left, right[j]);
      }
    }
  }
};

template <Conv2d C>
using Tf32 = TensorCores<C, float>;
template <Conv2d C>
using Fp16 = TensorCores<C, half>;

// Writes y, or for split-K and batches of GEMMs the sums without bias, activation and pooling:
// (parts, gemm_rows, CO).
template <Conv2d C, template <Conv2d> typename Products, Store S>
__device__ __forceinline__ void conv2d(const typename Products<C>::T* x,
                                       const typename Products<C>::T* weight, const float* bias,
                                       typename Stored<S>::Type* y, float slope,
                                       unsigned* shared) {
  using Mma = Products<C>;
  using T = typename Mma::T;
  constexpr int kVector = 16 / sizeof(T);
  constexpr int kDeep = C.in_channels / kVector;  // vectors of a pixel
  constexpr int kVectors = C.kernel_y * C.kernel_x * kDeep;
  constexpr int kSteps = ceil_div(kVectors, kTile), kShare = ceil_div(kSteps, C.split);
  constexpr int kWarpsAcross = C.columns / C.warp_columns;
  constexpr int kThreads = C.rows / C.warp_rows * kWarpsAcross * 32;
  constexpr int kCopiesA = ceil_div(C.rows * kTile, kThreads);
  constexpr int kCopiesB = ceil_div(C.columns * kTile, kThreads);
  static_assert(C.in_channels % kVector == 0 && C.stages >= 2);
  static_assert(C.split == 1 || C.gemms == 1);
  constexpr int kParts = C.split * C.gemms;
  constexpr int kStage = (C.rows + C.columns) * kStride;  // a k-tile of x, and one of the weights

  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  constexpr int kColumnTiles = ceil_div(C.out_channels, C.columns);
  const int first_column = blockIdx.x % kColumnTiles * C.columns;
  const int part = blockIdx.x / kColumnTiles % kParts;
  const int first_row = blockIdx.x / kColumnTiles / kParts * C.rows;
  if constexpr (C.gemms > 1) {
    x += part * (C.batch * C.height * C.width * C.in_channels);
    weight += part * (C.out_channels * kVectors * kVector);
  }

  // Of each row that this thread copies: where its map begins, and its window's first pixel.
  int map[kCopiesA], map_y[kCopiesA], map_x[kCopiesA];
#pragma unroll
  for (int i = 0; i < kCopiesA; ++i) {
    const Pixel pixel = pixel_of<C>(first_row + (thread + i * kThreads) / kTile);
    map[i] = pixel.n * C.height * C.width;
    map_y[i] = pixel.n < C.batch ? pixel.y * C.stride_y - C.top : -(1 << 20);
    map_x[i] = pixel.x * C.stride_x - C.left;
  }

  auto copy = [&](int stage, int step) {
    const int within = thread % kTile, k = step * kTile + within;
    const int tap = k / kDeep, channel = k % kDeep * kVector;
    const int ky = tap / C.kernel_x * C.dilation_y, kx = tap % C.kernel_x * C.dilation_x;
#pragma unroll
    for (int i = 0; i < kCopiesA; ++i) {
      const int row = (thread + i * kThreads) / kTile, in_y = map_y[i] + ky, in_x = map_x[i] + kx;
      const bool inside = k < kVectors && in_y >= 0 && in_y < C.height && in_x >= 0 && in_x < C.width;
      const T* from = x + (inside ? (map[i] + in_y * C.width + in_x) * C.in_channels + channel : 0);
      if (C.rows * kTile % kThreads == 0 || row < C.rows)
        copy16(shared + stage * kStage + row * kStride + 4 * within, from, inside);
    }
#pragma unroll
    for (int i = 0; i < kCopiesB; ++i) {
      const int row = (thread + i * kThreads) / kTile, column = first_column + row;
      const bool inside = k < kVectors && column < C.out_channels;
      const T* from = weight + (inside ? (column * kVectors + k) * kVector : 0);
      if (C.columns * kTile % kThreads == 0 || row < C.columns)
        copy16(shared + stage * kStage + (C.rows + row) * kStride + 4 * within, from, inside);
    }
  };

  const int first = C.gemms > 1 ? 0 : part * kShare;
  const int last = first + kShare < kSteps ? first + kShare : kSteps;
#pragma unroll
  for (int stage = 0; stage < C.stages - 1; ++stage) {
    if (first + stage < last) copy(stage, first + stage);
    commit_copies();
  }
  const int warp_row = warp / kWarpsAcross * C.warp_rows;
  const int warp_column = warp % kWarpsAcross * C.warp_columns;
  Mma mma;
  int reading = 0, writing = C.stages - 1;
  for (int step = first; step < last; ++step) {
    wait_for_copies<C.stages - 2>();
    __syncthreads();  // the step's k-tile is there, and nobody reads the one before it any more
    if (step + C.stages - 1 < last) copy(writing, step + C.stages - 1);
    commit_copies();
    const unsigned* k_tile = shared + reading * kStage;
    mma.add(k_tile + warp_row * kStride, k_tile + (C.rows + warp_column) * kStride, lane);
    reading = reading + 1 == C.stages ? 0 : reading + 1;
    writing = writing + 1 == C.stages ? 0 : writing + 1;
  }

  constexpr int kGroup = Mma::kGroup;
#pragma unroll
  for (int j = 0; j < Mma::kGroups; ++j) {
    const int column = first_column + warp_column + Mma::column(lane, j);
    if (column >= C.out_channels) continue;
    Pack<float, kGroup> shift = {};
    if constexpr (kParts == 1) shift = load<float, kGroup>(bias + column);
    const Bounds<C.bounded && kParts == 1, kGroup> bounds(bias, C.out_channels, column);
#pragma unroll
    for (int i = 0; i < Mma::kRows; i += C.pool && kParts == 1 ? 4 : 1) {
      const int row = first_row + warp_row + 8 * i + Mma::row(lane);
      float values[kGroup];
      int output = row;
      if constexpr (kParts > 1) {
        if (row >= gemm_rows(C)) continue;
        output = part * gemm_rows(C) + row;
      } else {
        if constexpr (C.pool) output = row / 32 * 8 + row % 8;
        if (output >= outputs(C)) continue;
      }
#pragma unroll
      for (int w = 0; w < kGroup; ++w) {
        values[w] = mma.sums[i][j][w];
        if constexpr (C.pool && kParts == 1) {
#pragma unroll
          for (int q = 1; q < 4; ++q) values[w] = fmaxf(values[w], mma.sums[i + q][j][w]);
        }
        values[w] += shift.values[w];
        values[w] = bounds.clip(rectified<C.relu && kParts == 1>(values[w], slope), w);
      }
      store<S>(y + output * C.out_channels + column, values);
    }
  }
}

// Reduces the partial sums of split-K in their order, then bias, activation and pooling; a thread
// for each channel of a pixel.  A block of 256 has 64 outputs, or 64 channels of one window's four
// pixels.
template <Conv2d C, Store S>
__device__ __forceinline__ void reduce_split_k(const float* parts, const float* bias,
                                        typename Stored<S>::Type* y, float slope) {
  constexpr int kPixels = C.pool ? 4 : 1, kOutputs = 256 / kPixels;
  __shared__ float pixels[C.pool ? 256 : 1];
  const int pixel = threadIdx.x / kOutputs;
  const int at = blockIdx.x * kOutputs + threadIdx.x % kOutputs;
  const int output = at / C.out_channels, column = at % C.out_channels;
  const bool inside = output < outputs(C);
  float sum = 0;
  if (inside) {
    const float* from = parts + row_of<C>(output, pixel) * C.out_channels + column;
    float values[C.split];
#pragma unroll
    for (int part = 0; part < C.split; ++part)
      values[part] = from[part * gemm_rows(C) * C.out_channels];
#pragma unroll
    for (int part = 0; part < C.split; ++part) sum += values[part];
  }
  if constexpr (C.pool) {
    pixels[threadIdx.x] = sum;
    __syncthreads();
    if (pixel != 0) return;
#pragma unroll
    for (int q = 1; q < 4; ++q) sum = fmaxf(sum, pixels[threadIdx.x + q * kOutputs]);
  }
  if (!inside) return;
  sum += bias[column];
  const Bounds<C.bounded> bounds(bias, C.out_channels, column);
  y[at] = stored<S>(bounds.clip(rectified<C.relu>(sum, slope)));
}

// A convolution of few input channels, as the first layer is: weight (KH, KW, CI, CO).  A thread
// computes four channels of four outputs, or of the four pixels of a window.  Where x is to be
// scaled, `scaling` holds what to subtract from each input channel, then what to multiply each by.
template <Conv2d C, Store S, typename... Scaling>
__device__ __forceinline__ void conv2d_direct(const float* x, const float* weight,
                                              const float* bias, typename Stored<S>::Type* y,
                                              float slope, Scaling... scaling) {
  constexpr bool kScaled = sizeof...(scaling) > 0;
  static_assert(!kScaled || sizeof...(scaling) == 2 * C.in_channels);
  const float numbers[sizeof...(scaling) + 1] = {scaling...};
  constexpr int kAcross = C.out_channels / 4;
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  const int column = at % kAcross * 4;
  // Rows as in the GEMM: four of a thread are 8 apart, a window's where the output is pooled.
  const int first_row = at / kAcross / 8 * 32 + at / kAcross % 8;
  Pixel pixels[4];
#pragma unroll
  for (int q = 0; q < 4; ++q) pixels[q] = pixel_of<C>(first_row + 8 * q);
  if (pixels[0].n >= C.batch) return;  // the first of four is the first to be past the end
  float sums[4][4] = {};
#pragma unroll
  for (int ky = 0; ky < C.kernel_y; ++ky) {
#pragma unroll
    for (int kx = 0; kx < C.kernel_x; ++kx) {
#pragma unroll
      for (int channel = 0; channel < C.in_channels; ++channel) {
        const auto factors = load<float, 4>(
            weight + ((ky * C.kernel_x + kx) * C.in_channels + channel) * C.out_channels + column);
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          const int in_y = pixels[q].y * C.stride_y - C.top + ky * C.dilation_y;
          const int in_x = pixels[q].x * C.stride_x - C.left + kx * C.dilation_x;
          const bool inside = pixels[q].n < C.batch && in_y >= 0 && in_y < C.height && in_x >= 0 &&
                              in_x < C.width;
          if (!inside) continue;
          float value = x[((pixels[q].n * C.height + in_y) * C.width + in_x) * C.in_channels + channel];
          if constexpr (kScaled)
            value = (value - numbers[channel]) * numbers[C.in_channels + channel];
#pragma unroll
          for (int w = 0; w < 4; ++w) sums[q][w] = fmaf(value, factors.values[w], sums[q][w]);
        }
      }
    }
  }
  const auto shift = load<float, 4>(bias + column);
  const Bounds<C.bounded, 4> bounds(bias, C.out_channels, column);
#pragma unroll
  for (int q = 0; q < 4; q += C.pool ? 4 : 1) {
    if (pixels[q].n >= C.batch) continue;
    const int row = first_row + 8 * q, output = C.pool ? row / 32 * 8 + row % 8 : row;
    float values[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      values[w] = sums[q][w];
      if constexpr (C.pool)
        values[w] = fmaxf(fmaxf(values[w], sums[1][w]), fmaxf(sums[2][w], sums[3][w]));
      values[w] += shift.values[w];
      values[w] = bounds.clip(rectified<C.relu>(values[w], slope), w);
    }
    store<S>(y + output * C.out_channels + column, values);
  }
}

}  // namespace ferplus
